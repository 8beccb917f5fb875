locals {
  secrets = {
    DISCORD_WEBHOOK_URL = { id = "${var.name_prefix}-discord-webhook-url", version = var.secret_versions.discord_webhook_url }
    ENVIRONMENT         = { id = "${var.name_prefix}-environment", version = var.secret_versions.environment }
    UPLOAD_TOKENS       = { id = "${var.name_prefix}-upload-tokens", version = var.secret_versions.upload_tokens }
  }
  secret_values = {
    DISCORD_WEBHOOK_URL = var.discord_webhook_url
    ENVIRONMENT         = var.environment
    UPLOAD_TOKENS       = var.upload_tokens
  }

  # What a function binds: the secret's name and one pinned version.
  secret_bindings = {
    for name, secret in local.secrets : name => {
      id      = secret.id
      version = var.manage_secret_values ? google_secret_manager_secret_version.values[name].version : tostring(secret.version)
    }
  }
}

resource "google_secret_manager_secret" "secrets" {
  for_each = var.manage_secret_values ? local.secrets : {}

  project   = var.project_id
  secret_id = each.value.id
  labels    = var.labels

  replication {
    auto {}
  }

  depends_on = [google_project_service.apis]
}

# The value is write-only: it is sent, and is in neither plan nor state. A new number sends it again, as a new version;
# the functions bind that version's own number, and so are redeployed.
resource "google_secret_manager_secret_version" "values" {
  for_each = var.manage_secret_values ? local.secrets : {}

  secret                 = google_secret_manager_secret.secrets[each.key].id
  secret_data_wo         = local.secret_values[each.key]
  secret_data_wo_version = each.value.version
  deletion_policy        = "DISABLE" # the one before stays, for a way back

  lifecycle {
    create_before_destroy = true
  }
}
