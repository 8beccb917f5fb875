# Each example is complete: check.sh runs this once with each of them.

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
  discord_webhook_url = "https://discord.com/api/webhooks/1/visibly-fake-token"
  upload_tokens       = "{\"alice\": \"visibly-fake-token\"}"
}

run "the_example_can_be_planned" {
  command = plan

  assert {
    condition     = google_cloudfunctions2_function.announce.event_trigger[0].trigger_region == var.database_location
    error_message = "The trigger is where the database is."
  }
}
