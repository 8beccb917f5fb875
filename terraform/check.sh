#!/bin/sh
# Format, validate and test every configuration here, in a copy: no lock file, no state, no cloud.
#
# Providers come from TF_PLUGIN_DIR where it is set, else from the registry. What cannot run for want of terraform or of
# providers is said, and fails where CI=true.
set -eu
cd "$(dirname "$0")/.."

skip() {
    echo "terraform: $1" >&2
    [ "${CI:-}" != true ] || exit 1
    exit 0
}

[ -z "${TF_PLUGIN_DIR:-}" ] || unset TF_CLI_CONFIG_FILE
command -v terraform > /dev/null || skip "not installed; its configuration was not checked"
terraform fmt -check -recursive -diff terraform

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/terraform"
cp -r functions requirements.txt "$work/"
cp -r terraform/gcp "$work/terraform/"
rm -rf "$work/terraform/gcp/.terraform" "$work/terraform/gcp/.terraform.lock.hcl"
cd "$work/terraform/gcp"

export TF_IN_AUTOMATION=true CHECKPOINT_DISABLE=true TF_DATA_DIR="$work/data"
if [ -n "${TF_PLUGIN_DIR:-}" ]; then
    set -- -plugin-dir="$TF_PLUGIN_DIR"
else
    set --
fi
terraform init -backend=false -input=false -no-color "$@" > "$work/init.log" 2>&1 || {
    tail -n 5 "$work/init.log" >&2
    skip "no providers can be had (set TF_PLUGIN_DIR, or let it reach the registry); only the format was checked"
}
terraform validate -no-color
terraform test -no-color
for example in examples/*/; do
    terraform test -no-color -test-directory=examples -var-file="${example}terraform.tfvars"
done
