resource "google_firestore_database" "prompts" {
  count = var.create_database ? 1 : 0

  project                           = var.project_id
  name                              = var.database_id
  location_id                       = var.database_location
  type                              = "FIRESTORE_NATIVE"
  point_in_time_recovery_enablement = var.point_in_time_recovery ? "POINT_IN_TIME_RECOVERY_ENABLED" : "POINT_IN_TIME_RECOVERY_DISABLED"
  delete_protection_state           = var.delete_protection ? "DELETE_PROTECTION_ENABLED" : "DELETE_PROTECTION_DISABLED"
  deletion_policy                   = var.delete_protection ? "ABANDON" : "DELETE"

  depends_on = [google_project_service.apis]
}

# Reconcile: unannounced versions of all agents, oldest first.
resource "google_firestore_index" "unannounced" {
  project     = var.project_id
  database    = local.database
  collection  = "versions"
  query_scope = "COLLECTION_GROUP"

  fields {
    field_path = "announced"
    order      = "ASCENDING"
  }
  fields {
    field_path = "created_at"
    order      = "ASCENDING"
  }
}

# GET /api/v1/deliveries and scripts/redeliver.py: deliveries of one status, newest first.
resource "google_firestore_index" "deliveries_by_status" {
  project     = var.project_id
  database    = local.database
  collection  = "deliveries"
  query_scope = "COLLECTION_GROUP"

  fields {
    field_path = "status"
    order      = "ASCENDING"
  }
  fields {
    field_path = "updated_at"
    order      = "DESCENDING"
  }
}

# What nobody queries is not indexed: each index entry costs storage and time at every write.
resource "google_firestore_field" "unindexed" {
  for_each = {
    for each in [
      ["contents", "config"],
      ["contents", "prompt_content"],
      ["deliveries", "detail"],
      ["versions", "prompt_preview"],
      ["versions", "reason"],
    ] : join(".", each) => { collection = each[0], field = each[1] }
  }

  project    = var.project_id
  database   = local.database
  collection = each.value.collection
  field      = each.value.field

  index_config {}
}

resource "google_firestore_field" "idempotency_ttl" {
  project    = var.project_id
  database   = local.database
  collection = "idempotency_keys"
  field      = "expires_at"

  ttl_config {}
  index_config {} # sequential times make a hot spot, and nobody queries them
}

locals {
  database = var.create_database ? google_firestore_database.prompts[0].name : var.database_id
  # `(default)` is what a STORE_URL without a database means.
  store_url = var.database_id == "(default)" ? "firestore://${var.project_id}" : "firestore://${var.project_id}/${var.database_id}"
}
