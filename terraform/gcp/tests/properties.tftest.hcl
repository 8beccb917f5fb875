# Every property of the deployment that a reviewer would check by eye. Nothing is created: providers are mocked.

mock_provider "google" {
  override_during = plan

  mock_resource "google_secret_manager_secret_version" {
    defaults = {
      version = "3"
    }
  }

  mock_resource "google_cloudfunctions2_function" {
    defaults = {
      service_config = { uri = "https://function.example.run.app" }
    }
  }
}

mock_provider "google-beta" {
  override_during = plan
}

mock_provider "time" {
  override_during = plan
}

override_resource {
  target          = google_service_account.scheduler
  override_during = plan
  values = {
    email = "prompt-herald-schedule@acme-prompts.iam.gserviceaccount.com"
  }
}

variables {
  project_id          = "acme-prompts"
  region              = "europe-west4"
  database_location   = "eur3"
  environment         = "production"
  discord_webhook_url = "https://discord.com/api/webhooks/1/visibly-fake-token"
  upload_tokens       = "{\"alice\": \"visibly-fake-token\"}"
}

run "functions" {
  command = plan

  assert {
    condition = alltrue([
      google_cloudfunctions2_function.api.name == "prompt-herald-api",
      google_cloudfunctions2_function.announce.name == "prompt-herald-announce",
      google_cloudfunctions2_function.reconcile.name == "prompt-herald-reconcile",
    ])
    error_message = "Function names are kebab-case."
  }

  assert {
    condition = alltrue([
      google_cloudfunctions2_function.api.build_config[0].entry_point == "save_prompt_version",
      google_cloudfunctions2_function.announce.build_config[0].entry_point == "announce_version",
      google_cloudfunctions2_function.reconcile.build_config[0].entry_point == "reconcile",
    ])
    error_message = "Each function has its entry point of main.py."
  }

  assert {
    condition     = alltrue([for each in [google_cloudfunctions2_function.api, google_cloudfunctions2_function.announce, google_cloudfunctions2_function.reconcile] : each.build_config[0].runtime == "python311"])
    error_message = "The default runtime is the version that the tests run on."
  }

  assert {
    condition     = alltrue([for each in [google_cloudfunctions2_function.api, google_cloudfunctions2_function.announce, google_cloudfunctions2_function.reconcile] : each.service_config[0].min_instance_count == 0])
    error_message = "Nothing runs, and costs, while nothing happens."
  }

  assert {
    condition     = alltrue([for each in [google_cloudfunctions2_function.api, google_cloudfunctions2_function.announce, google_cloudfunctions2_function.reconcile] : each.build_config[0].source[0].storage_source[0].object == google_storage_bucket_object.source.name])
    error_message = "All three are built from one archive."
  }
}

run "announce" {
  command = plan

  assert {
    condition     = google_cloudfunctions2_function.announce.service_config[0].ingress_settings == "ALLOW_INTERNAL_ONLY"
    error_message = "Announce is reached from inside only."
  }

  assert {
    condition     = google_cloudfunctions2_function.announce.event_trigger[0].trigger_region == "eur3" && google_cloudfunctions2_function.announce.location == "europe-west4"
    error_message = "The trigger is where the database is; the function is in a real region."
  }

  assert {
    condition     = google_cloudfunctions2_function.announce.event_trigger[0].event_type == "google.cloud.firestore.document.v1.created"
    error_message = "Announce is bound to document-created events."
  }

  assert {
    condition     = google_cloudfunctions2_function.announce.event_trigger[0].retry_policy == "RETRY_POLICY_RETRY"
    error_message = "Events are redelivered."
  }

  assert {
    condition = contains([for each in google_cloudfunctions2_function.announce.event_trigger[0].event_filters : [each.attribute, each.value, each.operator]],
    ["document", "agents/{agent}/versions/{version}", "match-path-pattern"])
    error_message = "The document filter is a path pattern, with its operator."
  }

  assert {
    condition     = contains([for each in google_cloudfunctions2_function.announce.event_trigger[0].event_filters : "${each.attribute}=${each.value}"], "database=(default)")
    error_message = "The database filter names the database."
  }

  assert {
    condition     = google_cloudfunctions2_function.announce.service_config[0].timeout_seconds == 300
    error_message = "The timeout is longer than MAX_WAIT, and under 540 s."
  }

  assert {
    condition = alltrue([
      google_cloudfunctions2_function.announce.service_config[0].max_instance_request_concurrency == 80,
      google_cloudfunctions2_function.announce.service_config[0].environment_variables["THREADS"] == "80",
      google_cloudfunctions2_function.announce.service_config[0].available_cpu == "1",
    ])
    error_message = "Eighty events at once need a whole CPU and as many threads."
  }

  assert {
    condition     = google_cloudfunctions2_function.announce.service_config[0].max_instance_count == 1
    error_message = "One instance sees Discord's rate limit whole."
  }
}

run "threads_follow_the_concurrency" {
  command = plan

  variables {
    announce_concurrency = 20
  }

  assert {
    condition     = google_cloudfunctions2_function.announce.service_config[0].environment_variables["THREADS"] == "20"
    error_message = "THREADS is the concurrency."
  }
}

run "secrets" {
  command = plan

  assert {
    condition     = toset([for each in google_cloudfunctions2_function.api.service_config[0].secret_environment_variables : each.key]) == toset(["UPLOAD_TOKENS"])
    error_message = "The API is given the upload tokens, and no webhook."
  }

  assert {
    condition     = toset([for each in google_cloudfunctions2_function.announce.service_config[0].secret_environment_variables : each.key]) == toset(["DISCORD_WEBHOOK_URL", "ENVIRONMENT"])
    error_message = "Announce is given webhook and environment, and no upload tokens."
  }

  assert {
    condition     = toset([for each in google_cloudfunctions2_function.reconcile.service_config[0].secret_environment_variables : each.key]) == toset(["DISCORD_WEBHOOK_URL", "ENVIRONMENT"])
    error_message = "Reconcile is given what announce is given."
  }

  assert {
    condition     = alltrue([for each in google_cloudfunctions2_function.announce.service_config[0].secret_environment_variables : each.version == "3"])
    error_message = "Secrets are bound by the version that was just written, so that a rotation redeploys."
  }

  assert {
    condition     = alltrue([for each in google_secret_manager_secret_version.values : each.secret_data == null])
    error_message = "No value is in the state: only the write-only argument is set."
  }

  assert {
    condition = alltrue([
      for function in [google_cloudfunctions2_function.api, google_cloudfunctions2_function.announce, google_cloudfunctions2_function.reconcile] :
      length(setintersection(keys(function.service_config[0].environment_variables), ["DISCORD_WEBHOOK_URL", "ENVIRONMENT", "UPLOAD_TOKENS"])) == 0
    ])
    error_message = "No secret is a plain variable."
  }

  assert {
    condition     = toset(keys(google_secret_manager_secret_iam_member.runtime)) == toset(["api.UPLOAD_TOKENS", "announce.DISCORD_WEBHOOK_URL", "announce.ENVIRONMENT", "reconcile.DISCORD_WEBHOOK_URL", "reconcile.ENVIRONMENT"])
    error_message = "Access is granted for each secret, to who needs it."
  }
}

run "a_rotation_is_a_new_version" {
  command = plan

  variables {
    secret_versions = { discord_webhook_url = 2 }
  }

  assert {
    condition = alltrue([
      google_secret_manager_secret_version.values["DISCORD_WEBHOOK_URL"].secret_data_wo_version == 2,
      google_secret_manager_secret_version.values["UPLOAD_TOKENS"].secret_data_wo_version == 1,
    ])
    error_message = "The number of one secret sends that secret anew, and no other."
  }
}

run "secrets_created_outside" {
  command = plan

  variables {
    manage_secret_values = false
    discord_webhook_url  = null
    upload_tokens        = null
    secret_versions      = { discord_webhook_url = 7 }
  }

  assert {
    condition     = length(google_secret_manager_secret.secrets) == 0 && length(google_secret_manager_secret_version.values) == 0
    error_message = "Nothing of Secret Manager's is made here."
  }

  assert {
    condition     = contains([for each in google_cloudfunctions2_function.announce.service_config[0].secret_environment_variables : "${each.secret}:${each.version}"], "prompt-herald-discord-webhook-url:7")
    error_message = "The version named is bound."
  }
}

run "service_accounts" {
  command = plan

  assert {
    condition = toset(concat([for each in google_service_account.runtime : each.account_id], [
      google_service_account.build.account_id,
      google_service_account.scheduler.account_id,
      google_service_account.trigger.account_id,
      ])) == toset([
      "prompt-herald-api", "prompt-herald-announce", "prompt-herald-reconcile",
      "prompt-herald-build", "prompt-herald-schedule", "prompt-herald-trigger",
    ])
    error_message = "Each thing that acts has an account of its own."
  }

  assert {
    condition     = alltrue([for each in google_project_iam_member.datastore : each.role == "roles/datastore.user"])
    error_message = "The functions may use documents, and not administer the database."
  }

  assert {
    condition     = toset([for each in google_project_iam_member.build : each.role]) == toset(["roles/artifactregistry.writer", "roles/logging.logWriter", "roles/storage.objectViewer"])
    error_message = "The build may read sources, write images and write logs."
  }

  assert {
    condition = alltrue([
      google_cloud_run_v2_service_iam_member.trigger_invokes_announce.name == "prompt-herald-announce",
      google_cloud_run_v2_service_iam_member.trigger_invokes_announce.role == "roles/run.invoker",
      google_cloud_run_v2_service_iam_member.scheduler_invokes_reconcile.name == "prompt-herald-reconcile",
      google_cloud_run_v2_service_iam_member.scheduler_invokes_reconcile.role == "roles/run.invoker",
    ])
    error_message = "Invoking is granted on one service each."
  }

  assert {
    condition     = google_project_iam_member.event_receiver.role == "roles/eventarc.eventReceiver"
    error_message = "The trigger's account may receive events."
  }
}

run "first_deployment" {
  command = plan

  assert {
    condition     = google_project_iam_member.eventarc_agent.role == "roles/eventarc.serviceAgent" && google_project_service_identity.eventarc.service == "eventarc.googleapis.com"
    error_message = "Eventarc's agent has its role before the first trigger."
  }

  assert {
    condition     = time_sleep.eventarc_agent.create_duration == "60s"
    error_message = "The role is given time to take effect."
  }

  assert {
    condition     = contains(keys(google_project_service.apis), "eventarc.googleapis.com") && alltrue([for each in google_project_service.apis : each.disable_on_destroy == false])
    error_message = "The APIs are enabled, and stay when this is destroyed."
  }
}

run "api_is_public_by_default" {
  command = plan

  assert {
    condition     = toset(keys(google_cloud_run_v2_service_iam_member.api)) == toset(["allUsers"])
    error_message = "Everybody reaches the API; an upload token is needed all the same."
  }
}

run "api_for_iam_only" {
  command = plan

  variables {
    api_access   = "iam"
    api_invokers = ["group:agents@example.com"]
  }

  assert {
    condition     = toset(keys(google_cloud_run_v2_service_iam_member.api)) == toset(["group:agents@example.com"])
    error_message = "Only those named reach the API."
  }
}

run "database" {
  command = plan

  assert {
    condition = alltrue([
      google_firestore_database.prompts[0].location_id == "eur3",
      google_firestore_database.prompts[0].type == "FIRESTORE_NATIVE",
      google_firestore_database.prompts[0].delete_protection_state == "DELETE_PROTECTION_ENABLED",
      google_firestore_database.prompts[0].point_in_time_recovery_enablement == "POINT_IN_TIME_RECOVERY_ENABLED",
      google_firestore_database.prompts[0].deletion_policy == "ABANDON",
    ])
    error_message = "The database is protected, and can be taken back in time."
  }

  assert {
    condition = alltrue([
      google_firestore_index.unannounced.query_scope == "COLLECTION_GROUP",
      google_firestore_index.unannounced.collection == "versions",
      [for each in google_firestore_index.unannounced.fields : "${each.field_path} ${each.order}"] == ["announced ASCENDING", "created_at ASCENDING"],
    ])
    error_message = "Reconcile's query has its index."
  }

  assert {
    condition = alltrue([
      google_firestore_index.deliveries_by_status.query_scope == "COLLECTION_GROUP",
      google_firestore_index.deliveries_by_status.collection == "deliveries",
      [for each in google_firestore_index.deliveries_by_status.fields : "${each.field_path} ${each.order}"] == ["status ASCENDING", "updated_at DESCENDING"],
    ])
    error_message = "The list of deliveries has its index."
  }

  assert {
    condition     = length(google_firestore_field.idempotency_ttl.ttl_config) == 1 && google_firestore_field.idempotency_ttl.field == "expires_at"
    error_message = "Idempotency keys end by themselves."
  }

  assert {
    condition     = alltrue([for each in google_firestore_field.unindexed : length(each.index_config[0].indexes) == 0]) && contains(keys(google_firestore_field.unindexed), "contents.prompt_content")
    error_message = "Prompts are not indexed."
  }

  assert {
    condition     = google_cloudfunctions2_function.api.service_config[0].environment_variables["STORE_URL"] == "firestore://acme-prompts"
    error_message = "The functions use that database."
  }
}

run "an_existing_named_database" {
  command = plan

  variables {
    create_database = false
    database_id     = "prompts"
  }

  assert {
    condition     = length(google_firestore_database.prompts) == 0
    error_message = "No database is made."
  }

  assert {
    condition = alltrue([
      google_cloudfunctions2_function.api.service_config[0].environment_variables["STORE_URL"] == "firestore://acme-prompts/prompts",
      contains([for each in google_cloudfunctions2_function.announce.event_trigger[0].event_filters : "${each.attribute}=${each.value}"], "database=prompts"),
      google_firestore_index.unannounced.database == "prompts",
    ])
    error_message = "Functions, trigger and indexes use the one that is there."
  }
}

run "reconcile" {
  command = plan

  assert {
    condition = alltrue([
      google_cloud_scheduler_job.reconcile.http_target[0].http_method == "POST",
      google_cloud_scheduler_job.reconcile.http_target[0].uri == google_cloudfunctions2_function.reconcile.service_config[0].uri,
      google_cloud_scheduler_job.reconcile.http_target[0].oidc_token[0].audience == google_cloudfunctions2_function.reconcile.service_config[0].uri,
      google_cloud_scheduler_job.reconcile.http_target[0].oidc_token[0].service_account_email == "prompt-herald-schedule@acme-prompts.iam.gserviceaccount.com",
    ])
    error_message = "The scheduler calls reconcile as itself."
  }

  assert {
    condition     = google_cloud_scheduler_job.reconcile.schedule == "*/5 * * * *" && google_cloud_scheduler_job.reconcile.attempt_deadline == "320s"
    error_message = "Every five minutes, with more time than the function takes."
  }
}

run "archive" {
  command = plan

  assert {
    condition     = strcontains(google_storage_bucket_object.source.name, data.archive_file.source.output_sha256)
    error_message = "A changed archive has another name, and so is deployed."
  }

  assert {
    condition = alltrue([
      contains([for each in data.archive_file.source.source : each.filename], "main.py"),
      contains([for each in data.archive_file.source.source : each.filename], "requirements.txt"),
      contains([for each in data.archive_file.source.source : each.filename], "herald/stores/firestore.py"),
      alltrue([for each in data.archive_file.source.source : endswith(each.filename, ".py") || each.filename == "requirements.txt"]),
    ])
    error_message = "The archive holds functions/ and requirements.txt side by side, and nothing else."
  }

  assert {
    condition     = google_storage_bucket.source.public_access_prevention == "enforced" && google_storage_bucket.source.uniform_bucket_level_access
    error_message = "The sources are not public."
  }
}

run "monitoring" {
  command = plan

  assert {
    condition     = toset([for each in google_logging_metric.counters : each.name]) == toset([for name in ["sent", "failed", "suppressed", "reconcile-left", "errors"] : "prompt-herald-${name}"]) && google_logging_metric.reconcile_found.value_extractor == "EXTRACT(jsonPayload.found)"
    error_message = "Sent, failed, suppressed and what reconcile found are counted."
  }

  assert {
    condition     = toset(keys(google_monitoring_alert_policy.alerts)) == toset(["failed", "unannounced", "errors"])
    error_message = "There is an alert for a failed announcement, for versions left unannounced, and for errors."
  }

  assert {
    condition     = google_monitoring_alert_policy.alerts["unannounced"].conditions[0].condition_threshold[0].duration == "1800s"
    error_message = "Half an hour unannounced is an alert."
  }

  assert {
    condition     = length(google_monitoring_alert_policy.alerts["failed"].notification_channels) == 0
    error_message = "Notification channels are optional."
  }
}
