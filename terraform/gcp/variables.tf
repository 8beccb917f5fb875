variable "alert_notification_channels" {
  description = "Monitoring notification channels that alerts go to, as projects/PROJECT/notificationChannels/ID. None: alerts are in the console only."
  type        = list(string)
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for each in var.alert_notification_channels : can(regex("^projects/[^/]+/notificationChannels/[0-9]+$", each))])
    error_message = "Each must be of the form projects/PROJECT/notificationChannels/ID; `gcloud beta monitoring channels list` shows them."
  }
}

variable "announce_concurrency" {
  description = "How many events one announce instance holds at once. They leave together, up to ten in a message."
  type        = number
  default     = 80
  nullable    = false

  validation {
    condition     = var.announce_concurrency >= 1 && var.announce_concurrency <= 1000 && floor(var.announce_concurrency) == var.announce_concurrency
    error_message = "It must be a whole number from 1 to 1000, Cloud Run's own limit."
  }
}

variable "announce_max_instances" {
  description = "How many announce instances there may be. One sees Discord's rate limit whole; more see parts of it, and meet more 429s."
  type        = number
  default     = 1
  nullable    = false

  validation {
    condition     = var.announce_max_instances >= 1 && var.announce_max_instances <= 10
    error_message = "It must be from 1 to 10: Discord's pace is the limit, not the instances."
  }
}

variable "announce_outside_production" {
  description = "Announce although `environment` is neither production nor prod."
  type        = bool
  default     = false
  nullable    = false
}

variable "api_access" {
  description = "Who may reach the upload API: `public`, or `iam` for api_invokers only. An upload token is needed either way."
  type        = string
  default     = "public"
  nullable    = false

  validation {
    condition     = contains(["public", "iam"], var.api_access)
    error_message = "It must be public or iam."
  }
}

variable "api_invokers" {
  description = "With api_access = iam: who may reach the API, such as serviceAccount:ci@PROJECT.iam.gserviceaccount.com."
  type        = list(string)
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for each in var.api_invokers : can(regex("^(user|group|serviceAccount|domain|principal|principalSet):.+", each))])
    error_message = "Each must be an IAM member such as user:…, group:… or serviceAccount:…; for everybody, set api_access = \"public\"."
  }
}

variable "api_max_instances" {
  description = "How many API instances there may be; it scales to zero."
  type        = number
  default     = 3
  nullable    = false

  validation {
    condition     = var.api_max_instances >= 1 && var.api_max_instances <= 100
    error_message = "It must be from 1 to 100."
  }
}

variable "create_database" {
  description = "Create the Firestore database; false: use the one that is there."
  type        = bool
  default     = true
  nullable    = false
}

variable "database_id" {
  description = "The Firestore database, `(default)` or a name."
  type        = string
  default     = "(default)"
  nullable    = false

  validation {
    condition     = var.database_id == "(default)" || can(regex("^[a-z][a-z0-9-]{2,61}[a-z0-9]$", var.database_id))
    error_message = "It must be (default), or 4 to 63 lower-case letters, digits and hyphens, beginning with a letter."
  }
}

variable "database_location" {
  description = "Where the database is, exactly: a multi-region (nam5, eur3) or a region. The event trigger must be in the same place. It cannot be changed later."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^(nam5|eur3|nam7|[a-z]+-[a-z]+[0-9]+)$", var.database_location))
    error_message = "It must be nam5, nam7, eur3, or a region such as europe-west1."
  }
}

variable "delete_protection" {
  description = "Refuse to delete the database. Set it to false, and apply, before a destroy that shall delete what is stored."
  type        = bool
  default     = true
  nullable    = false
}

variable "discord_bot_avatar_url" {
  description = "The sender's picture, an https URL; null: the webhook's own."
  type        = string
  default     = null
}

variable "discord_bot_name" {
  description = "The sender's name; null: the webhook's own."
  type        = string
  default     = null
}

variable "discord_thread_fallback" {
  description = "Use the channel itself where the thread is unknown or archived."
  type        = bool
  default     = false
  nullable    = false
}

variable "discord_thread_id" {
  description = "Post into this thread; null: the channel, or the thread_id in the webhook URL."
  type        = string
  default     = null

  validation {
    condition     = var.discord_thread_id == null || can(regex("^[0-9]+$", var.discord_thread_id))
    error_message = "It has digits only; copy it from the thread's menu in Discord."
  }
}

variable "discord_webhook_url" {
  description = "The webhook URL; it reaches Secret Manager and never the state. Give it as TF_VAR_discord_webhook_url. Not used with manage_secret_values = false."
  type        = string
  default     = null
  sensitive   = true
  ephemeral   = true

  validation {
    condition     = var.discord_webhook_url == null || can(regex("^https://((ptb|canary)\\.)?discord(app)?\\.com/api/(v[0-9]+/)?webhooks/[0-9]+/", var.discord_webhook_url))
    error_message = "It must be a URL as Discord shows it, https://discord.com/api/webhooks/…"
  }
}

variable "environment" {
  description = "Announced only where it is production or prod; the message names it."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,31}$", var.environment))
    error_message = "It must be 1 to 32 lower-case letters, digits and hyphens, such as production or staging."
  }
}

variable "labels" {
  description = "Labels of everything that takes labels."
  type        = map(string)
  default     = {}
  nullable    = false
}

variable "manage_secret_values" {
  description = "true: the values come from discord_webhook_url, environment and upload_tokens. false: the three secrets are created outside, and secret_versions says which versions to bind."
  type        = bool
  default     = true
  nullable    = false
}

variable "name_prefix" {
  description = "What every name begins with."
  type        = string
  default     = "prompt-herald"
  nullable    = false

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,17}[a-z0-9]$", var.name_prefix))
    error_message = "It must be 3 to 19 lower-case letters, digits and hyphens, so that service account names stay within 30."
  }
}

variable "point_in_time_recovery" {
  description = "Keep seven days of the database to go back to."
  type        = bool
  default     = true
  nullable    = false
}

variable "project_id" {
  description = "The Google Cloud project; it must have billing."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{4,28}[a-z0-9]$", var.project_id))
    error_message = "It must be a project id (not its name or number): 6 to 30 lower-case letters, digits and hyphens."
  }
}

variable "python_runtime" {
  description = "The functions' runtime; the default is what the tests run on."
  type        = string
  default     = "python311"
  nullable    = false

  validation {
    condition     = contains(["python311", "python312", "python313", "python314"], var.python_runtime)
    error_message = "It must be python311, python312, python313 or python314."
  }
}

variable "reconcile_schedule" {
  description = "When unannounced versions are looked for, in cron form."
  type        = string
  default     = "*/5 * * * *"
  nullable    = false

  validation {
    condition     = length(split(" ", var.reconcile_schedule)) == 5
    error_message = "It must have five fields, such as */5 * * * *."
  }
}

variable "region" {
  description = "Where the functions run. For a database in nam5 take us-central1, for eur3 europe-west4, else the database's own region."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^[a-z]+-[a-z]+[0-9]+$", var.region))
    error_message = "It must be a region such as us-central1, not a multi-region."
  }
}

variable "secret_versions" {
  description = "With manage_secret_values = false: the version numbers to bind. With true: raise one to rotate that secret."
  type = object({
    discord_webhook_url = optional(number, 1)
    environment         = optional(number, 1)
    upload_tokens       = optional(number, 1)
  })
  default  = {}
  nullable = false

  validation {
    condition     = alltrue([for each in values(var.secret_versions) : each >= 1 && floor(each) == each])
    error_message = "Each must be a whole number from 1: versions are pinned, so that a rotation redeploys. There is no `latest`."
  }
}

variable "time_zone" {
  description = "IANA name; of the date in version names."
  type        = string
  default     = "UTC"
  nullable    = false
}

variable "upload_tokens" {
  description = "A JSON object name → token; it reaches Secret Manager and never the state. Give it as TF_VAR_upload_tokens. Not used with manage_secret_values = false."
  type        = string
  default     = null
  sensitive   = true
  ephemeral   = true

  validation {
    condition     = var.upload_tokens == null || can({ for name, token in jsondecode(var.upload_tokens) : name => regex(".{16,}", token) })
    error_message = "It must be a JSON object such as {\"alice\": \"…\"}, each token 16 characters or longer."
  }
}

variable "version_prefix" {
  description = "First part of version names, eai-2025-08-20-v1; null: the agent type."
  type        = string
  default     = null
}
