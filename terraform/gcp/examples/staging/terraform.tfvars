# Staging: everything but the announcements, which are recorded as suppressed.
project_id        = "acme-prompts-staging"
region            = "europe-west1"
database_location = "europe-west1"
environment       = "staging"

# Nothing here is worth keeping.
delete_protection      = false
point_in_time_recovery = false

# Uploads come from CI only.
api_access   = "iam"
api_invokers = ["serviceAccount:ci@acme-prompts-staging.iam.gserviceaccount.com"]
