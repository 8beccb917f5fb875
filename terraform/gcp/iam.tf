# One account for each thing that acts, and to each only what it needs.

resource "google_service_account" "runtime" {
  for_each = local.function_secrets

  project      = var.project_id
  account_id   = "${var.name_prefix}-${each.key}"
  display_name = "Prompt Herald: ${each.key} function"

  depends_on = [google_project_service.apis]
}

resource "google_service_account" "build" {
  project      = var.project_id
  account_id   = "${var.name_prefix}-build"
  display_name = "Prompt Herald: builds the functions"

  depends_on = [google_project_service.apis]
}

resource "google_service_account" "trigger" {
  project      = var.project_id
  account_id   = "${var.name_prefix}-trigger"
  display_name = "Prompt Herald: brings Firestore's events to announce"

  depends_on = [google_project_service.apis]
}

resource "google_service_account" "scheduler" {
  project      = var.project_id
  account_id   = "${var.name_prefix}-schedule"
  display_name = "Prompt Herald: starts reconcile"

  depends_on = [google_project_service.apis]
}

resource "google_project_iam_member" "datastore" {
  for_each = google_service_account.runtime

  project = var.project_id
  role    = "roles/datastore.user"
  member  = each.value.member
}

resource "google_project_iam_member" "build" {
  for_each = toset(["roles/artifactregistry.writer", "roles/logging.logWriter", "roles/storage.objectViewer"])

  project = var.project_id
  role    = each.key
  member  = google_service_account.build.member
}

resource "google_project_iam_member" "event_receiver" {
  project = var.project_id
  role    = "roles/eventarc.eventReceiver"
  member  = google_service_account.trigger.member
}

resource "google_secret_manager_secret_iam_member" "runtime" {
  for_each = merge([
    for function, names in local.function_secrets : {
      for name in names : "${function}.${name}" => { function = function, name = name }
    }
  ]...)

  project   = var.project_id
  secret_id = var.manage_secret_values ? google_secret_manager_secret.secrets[each.value.name].secret_id : local.secrets[each.value.name].id
  role      = "roles/secretmanager.secretAccessor"
  member    = google_service_account.runtime[each.value.function].member
}

resource "google_cloud_run_v2_service_iam_member" "trigger_invokes_announce" {
  project  = var.project_id
  location = var.region
  name     = google_cloudfunctions2_function.announce.name
  role     = "roles/run.invoker"
  member   = google_service_account.trigger.member
}

resource "google_cloud_run_v2_service_iam_member" "scheduler_invokes_reconcile" {
  project  = var.project_id
  location = var.region
  name     = google_cloudfunctions2_function.reconcile.name
  role     = "roles/run.invoker"
  member   = google_service_account.scheduler.member
}

resource "google_cloud_run_v2_service_iam_member" "api" {
  for_each = toset(var.api_access == "public" ? ["allUsers"] : var.api_invokers)

  project  = var.project_id
  location = var.region
  name     = google_cloudfunctions2_function.api.name
  role     = "roles/run.invoker"
  member   = each.key
}

# Eventarc's own agent comes into being, and gets its role, at the first use: too late for a first trigger. So it is
# made here, given its role, and waited for.
resource "google_project_service_identity" "eventarc" {
  provider = google-beta

  project = var.project_id
  service = "eventarc.googleapis.com"

  depends_on = [google_project_service.apis]
}

resource "google_project_iam_member" "eventarc_agent" {
  project = var.project_id
  role    = "roles/eventarc.serviceAgent"
  member  = google_project_service_identity.eventarc.member
}

resource "time_sleep" "eventarc_agent" {
  create_duration = "60s"

  triggers = {
    agent = google_project_iam_member.eventarc_agent.member
  }
}
