# What cannot work is refused by plan, with a sentence.

mock_provider "google" {
  override_during = plan

  mock_resource "google_cloudfunctions2_function" {
    defaults = {
      service_config = { uri = "https://function.example.run.app" }
    }
  }
}

mock_provider "google-beta" {}

mock_provider "time" {}

variables {
  project_id          = "acme-prompts"
  region              = "europe-west1"
  database_location   = "europe-west1"
  environment         = "production"
  discord_webhook_url = "https://discord.com/api/webhooks/1/visibly-fake-token"
  upload_tokens       = "{\"alice\": \"visibly-fake-token\"}"
}

run "a_webhook_elsewhere" {
  command = plan
  variables {
    discord_webhook_url = "https://example.com/api/webhooks/1/visibly-fake-token"
  }
  expect_failures = [var.discord_webhook_url]
}

run "tokens_that_are_no_json" {
  command = plan
  variables {
    upload_tokens = "visibly-fake-token"
  }
  expect_failures = [var.upload_tokens]
}

run "a_token_that_is_too_short" {
  command = plan
  variables {
    upload_tokens = "{\"alice\": \"short\"}"
  }
  expect_failures = [var.upload_tokens]
}

run "a_multi_region_for_the_functions" {
  command = plan
  variables {
    region = "eur3"
  }
  expect_failures = [var.region]
}

run "a_project_by_its_name" {
  command = plan
  variables {
    project_id = "Acme Prompts"
  }
  expect_failures = [var.project_id]
}

run "a_runtime_that_is_not_there" {
  command = plan
  variables {
    python_runtime = "python310"
  }
  expect_failures = [var.python_runtime]
}

run "everybody_by_the_back_door" {
  command = plan
  variables {
    api_access   = "iam"
    api_invokers = ["allUsers"]
  }
  expect_failures = [var.api_invokers]
}

run "a_secret_version_that_is_not_pinned" {
  command = plan
  variables {
    secret_versions = { upload_tokens = 0 }
  }
  expect_failures = [var.secret_versions]
}
