locals {
  # Which function is given which secrets; everything else is refused to it.
  function_secrets = {
    api       = ["UPLOAD_TOKENS"]
    announce  = ["DISCORD_WEBHOOK_URL", "ENVIRONMENT"]
    reconcile = ["DISCORD_WEBHOOK_URL", "ENVIRONMENT"]
  }

  settings = { for name, value in {
    LOG_FORMAT = "json"
    STORE_URL  = local.store_url
  } : name => value if value != null }

  announce_settings = { for name, value in {
    ANNOUNCE_OUTSIDE_PRODUCTION = tostring(var.announce_outside_production)
    DISCORD_BOT_AVATAR_URL      = var.discord_bot_avatar_url
    DISCORD_BOT_NAME            = var.discord_bot_name
    DISCORD_THREAD_FALLBACK     = tostring(var.discord_thread_fallback)
    DISCORD_THREAD_ID           = var.discord_thread_id
  } : name => value if value != null }

  api_settings = { for name, value in {
    TIME_ZONE      = var.time_zone
    VERSION_PREFIX = var.version_prefix
  } : name => value if value != null }

  api_concurrency = 40

  # Within it, MAX_WAIT (240 s) and RECONCILE_BUDGET (200 s) end in an answer rather than in a cut-off.
  announce_timeout_seconds = 300
}

resource "google_cloudfunctions2_function" "api" {
  project     = var.project_id
  name        = "${var.name_prefix}-api"
  location    = var.region
  description = "Prompt Herald: upload API"
  labels      = var.labels

  build_config {
    runtime         = var.python_runtime
    entry_point     = "save_prompt_version"
    service_account = google_service_account.build.id

    source {
      storage_source {
        bucket = google_storage_bucket.source.name
        object = google_storage_bucket_object.source.name
      }
    }
  }

  service_config {
    available_cpu                    = "1" # more than one request at a time needs a whole one
    available_memory                 = "512Mi"
    environment_variables            = merge(local.settings, local.api_settings, { THREADS = tostring(local.api_concurrency) })
    ingress_settings                 = "ALLOW_ALL"
    max_instance_count               = var.api_max_instances
    max_instance_request_concurrency = local.api_concurrency
    min_instance_count               = 0
    service_account_email            = google_service_account.runtime["api"].email
    timeout_seconds                  = 60

    dynamic "secret_environment_variables" {
      for_each = toset(local.function_secrets.api)

      content {
        key        = secret_environment_variables.key
        project_id = var.project_id
        secret     = local.secret_bindings[secret_environment_variables.key].id
        version    = local.secret_bindings[secret_environment_variables.key].version
      }
    }
  }

  depends_on = [
    google_project_iam_member.build,
    google_project_iam_member.datastore,
    google_secret_manager_secret_iam_member.runtime,
  ]
}

resource "google_cloudfunctions2_function" "announce" {
  project     = var.project_id
  name        = "${var.name_prefix}-announce"
  location    = var.region
  description = "Prompt Herald: announces each new version"
  labels      = var.labels

  build_config {
    runtime         = var.python_runtime
    entry_point     = "announce_version"
    service_account = google_service_account.build.id

    source {
      storage_source {
        bucket = google_storage_bucket.source.name
        object = google_storage_bucket_object.source.name
      }
    }
  }

  service_config {
    available_cpu                    = "1"
    available_memory                 = "512Mi"
    environment_variables            = merge(local.settings, local.announce_settings, { THREADS = tostring(var.announce_concurrency) })
    ingress_settings                 = "ALLOW_INTERNAL_ONLY"
    max_instance_count               = var.announce_max_instances
    max_instance_request_concurrency = var.announce_concurrency
    min_instance_count               = 0
    service_account_email            = google_service_account.runtime["announce"].email
    timeout_seconds                  = local.announce_timeout_seconds

    dynamic "secret_environment_variables" {
      for_each = toset(local.function_secrets.announce)

      content {
        key        = secret_environment_variables.key
        project_id = var.project_id
        secret     = local.secret_bindings[secret_environment_variables.key].id
        version    = local.secret_bindings[secret_environment_variables.key].version
      }
    }
  }

  event_trigger {
    event_type            = "google.cloud.firestore.document.v1.created"
    trigger_region        = var.database_location # not the function's: where the database is
    retry_policy          = "RETRY_POLICY_RETRY"  # the default drops an event after one failure
    service_account_email = google_service_account.trigger.email

    event_filters {
      attribute = "database"
      value     = local.database
    }
    event_filters {
      attribute = "document"
      value     = "agents/{agent}/versions/{version}"
      operator  = "match-path-pattern" # without it the braces are taken as they are, and nothing ever matches
    }
  }

  depends_on = [
    google_project_iam_member.build,
    google_project_iam_member.datastore,
    google_project_iam_member.event_receiver,
    google_secret_manager_secret_iam_member.runtime,
    time_sleep.eventarc_agent,
  ]
}

resource "google_cloudfunctions2_function" "reconcile" {
  project     = var.project_id
  name        = "${var.name_prefix}-reconcile"
  location    = var.region
  description = "Prompt Herald: announces versions that no event has announced"
  labels      = var.labels

  build_config {
    runtime         = var.python_runtime
    entry_point     = "reconcile"
    service_account = google_service_account.build.id

    source {
      storage_source {
        bucket = google_storage_bucket.source.name
        object = google_storage_bucket_object.source.name
      }
    }
  }

  service_config {
    available_cpu                    = "1"
    available_memory                 = "512Mi"
    environment_variables            = merge(local.settings, local.announce_settings)
    ingress_settings                 = "ALLOW_INTERNAL_ONLY" # Cloud Scheduler counts as internal
    max_instance_count               = 1
    max_instance_request_concurrency = 1
    min_instance_count               = 0
    service_account_email            = google_service_account.runtime["reconcile"].email
    timeout_seconds                  = local.announce_timeout_seconds

    dynamic "secret_environment_variables" {
      for_each = toset(local.function_secrets.reconcile)

      content {
        key        = secret_environment_variables.key
        project_id = var.project_id
        secret     = local.secret_bindings[secret_environment_variables.key].id
        version    = local.secret_bindings[secret_environment_variables.key].version
      }
    }
  }

  depends_on = [
    google_firestore_index.unannounced,
    google_project_iam_member.build,
    google_project_iam_member.datastore,
    google_secret_manager_secret_iam_member.runtime,
  ]
}
