locals {
  services = "resource.type=\"cloud_run_revision\" AND resource.labels.service_name=~\"^${var.name_prefix}-(api|announce|reconcile)$\""

  # The messages are the product's contract with its operators: docs/OPERATIONS.md explains each.
  counters = {
    sent = {
      description = "Announcements that arrived"
      filter      = "jsonPayload.message=\"Discord notification sent successfully\""
    }
    failed = {
      description = "Announcements that a person has to look at"
      filter      = "jsonPayload.message=\"Failed to send Discord notification\" AND jsonPayload.final=true"
    }
    suppressed = {
      description = "Announcements that were not to be made"
      filter      = "(jsonPayload.message=\"Not in production environment\" OR jsonPayload.message=\"Discord webhook URL not configured\")"
    }
    reconcile-left = {
      description = "Runs of reconcile that left versions unannounced"
      filter      = "jsonPayload.message=\"Reconcile finished\" AND (jsonPayload.left>0 OR jsonPayload.complete=false)"
    }
    errors = {
      description = "Errors of the functions other than failed announcements"
      filter      = "severity>=ERROR AND NOT jsonPayload.message=\"Failed to send Discord notification\""
    }
  }
}

resource "google_logging_metric" "counters" {
  for_each = local.counters

  project     = var.project_id
  name        = "${var.name_prefix}-${each.key}"
  description = each.value.description
  filter      = "${local.services} AND ${each.value.filter}"

  metric_descriptor {
    metric_kind = "DELTA"
    value_type  = "INT64"
    unit        = "1"
  }

  depends_on = [google_project_service.apis]
}

resource "google_logging_metric" "reconcile_found" {
  project         = var.project_id
  name            = "${var.name_prefix}-reconcile-found"
  description     = "Versions that a run of reconcile found unannounced"
  filter          = "${local.services} AND jsonPayload.message=\"Reconcile finished\""
  value_extractor = "EXTRACT(jsonPayload.found)"

  metric_descriptor {
    metric_kind = "DELTA"
    value_type  = "DISTRIBUTION"
    unit        = "1"
  }

  bucket_options {
    exponential_buckets {
      num_finite_buckets = 16
      growth_factor      = 2
      scale              = 1
    }
  }

  depends_on = [google_project_service.apis]
}

locals {
  alerts = {
    failed = {
      title    = "an announcement failed"
      metric   = google_logging_metric.counters["failed"].name
      duration = "0s"
      period   = "300s"
      text     = "A version was not announced, and will not be tried again by itself. GET /api/v1/deliveries?status=failed names it and the reason; docs/OPERATIONS.md, \"An announcement failed\", tells what to do."
    }
    unannounced = {
      title    = "versions are unannounced for 30 minutes"
      metric   = google_logging_metric.counters["reconcile-left"].name
      duration = "1800s"
      period   = "600s"
      text     = "Every run of reconcile in the last half hour has left versions unannounced: Discord or the store may be down. docs/OPERATIONS.md, \"Versions stay unannounced\", tells what to do."
    }
    errors = {
      title    = "a function reports errors"
      metric   = google_logging_metric.counters["errors"].name
      duration = "0s"
      period   = "300s"
      text     = "One of the functions logged an error. docs/OPERATIONS.md lists each message, what it means and what to do."
    }
  }
}

resource "google_monitoring_alert_policy" "alerts" {
  for_each = local.alerts

  project               = var.project_id
  display_name          = "Prompt Herald (${var.name_prefix}): ${each.value.title}"
  combiner              = "OR"
  notification_channels = var.alert_notification_channels
  user_labels           = var.labels

  conditions {
    display_name = each.value.title

    condition_threshold {
      filter          = "resource.type=\"cloud_run_revision\" AND metric.type=\"logging.googleapis.com/user/${each.value.metric}\""
      comparison      = "COMPARISON_GT"
      threshold_value = 0
      duration        = each.value.duration

      aggregations {
        alignment_period     = each.value.period
        per_series_aligner   = "ALIGN_SUM"
        cross_series_reducer = "REDUCE_SUM"
      }
    }
  }

  documentation {
    content   = each.value.text
    mime_type = "text/markdown"
  }
}
