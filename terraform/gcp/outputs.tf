output "announce_function" {
  description = "Name of the announce function, for its logs."
  value       = google_cloudfunctions2_function.announce.name
}

output "api_url" {
  description = "URL of the upload API: HERALD_API."
  value       = google_cloudfunctions2_function.api.service_config[0].uri
}

output "reconcile_job" {
  description = "Name of the scheduled job; `gcloud scheduler jobs run` starts it at once."
  value       = google_cloud_scheduler_job.reconcile.name
}

output "secret_ids" {
  description = "The secrets in Secret Manager, by variable."
  value       = { for name, secret in local.secrets : name => secret.id }
}

output "store_url" {
  description = "STORE_URL, for scripts run from elsewhere."
  value       = local.store_url
}
