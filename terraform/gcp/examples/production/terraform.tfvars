# Production. The webhook URL and the upload tokens are given as TF_VAR_discord_webhook_url and TF_VAR_upload_tokens.
project_id        = "acme-prompts"
region            = "europe-west4"
database_location = "eur3"
environment       = "production"
time_zone         = "Europe/Berlin"
discord_bot_name  = "Prompt Herald"

# Raise one to rotate that secret.
secret_versions = {
  discord_webhook_url = 1
  upload_tokens       = 1
}

alert_notification_channels = ["projects/acme-prompts/notificationChannels/1234567890"]

labels = {
  team    = "agents"
  service = "prompt-herald"
}
