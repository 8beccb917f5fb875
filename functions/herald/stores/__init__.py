"""One file a document store: VersionStore and Ledger."""
