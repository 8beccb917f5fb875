locals {
  root      = "${path.module}/../.."
  functions = fileset("${local.root}/functions", "**/*.py")
}

# The functions and what they need, and nothing else: requirements.txt must stand beside main.py.
data "archive_file" "source" {
  type        = "zip"
  output_path = "${path.module}/.terraform/tmp/functions.zip"

  dynamic "source" {
    for_each = local.functions

    content {
      filename = source.value
      content  = file("${local.root}/functions/${source.value}")
    }
  }

  source {
    filename = "requirements.txt"
    content  = file("${local.root}/requirements.txt")
  }
}

resource "google_storage_bucket" "source" {
  project                     = var.project_id
  name                        = "${var.project_id}-${var.name_prefix}-source"
  location                    = var.region
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"
  force_destroy               = true # it holds what this repository holds
  labels                      = var.labels

  lifecycle_rule {
    condition {
      age                = 90
      num_newer_versions = 5
    }
    action {
      type = "Delete"
    }
  }

  versioning {
    enabled = true
  }

  depends_on = [google_project_service.apis]
}

# The hash in its name makes a changed archive a new object, and so a new deployment.
resource "google_storage_bucket_object" "source" {
  name   = "functions-${data.archive_file.source.output_sha256}.zip"
  bucket = google_storage_bucket.source.name
  source = data.archive_file.source.output_path
}
