# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=sh disable=SC2154 # work is set by cli.sh
# What the tests of snapshots through the command share: a store of their own, and looking at it.
# Usage: . lib/snapshot.sh, after lib/cli.sh

export THAW_STORE="$work/store"

snapshot() { # NAME FIELD
    "$THAW" ls --json | jq -r --arg name "$1" ".items[] | select(.name == \$name) | .$2"
}

id_of() { # NAME
    snapshot "$1" id
}

snapshots() {
    "$THAW" ls --json | jq -r '[.items[].name] | join(" ")'
}

# True if a snapshot says that it was made within the last minute.
created_now() { # NAME
    [ $(($(date +%s) - $(date -d "$(snapshot "$1" created)" +%s))) -le 60 ]
}

# True once the guest `tick` of a VM has counted so far.
ticked() { # VM COUNT
    [ "$(vm "$1" mark)" -ge "$2" ]
}

# True once a restored `tick` has counted three times.
ticked_on() { # VM
    [ "$(vm "$1" marks)" -ge 3 ]
}

# The first number that a restored `tick` has counted to.
first_tick() { # VM
    vm "$1" "| .mark - .marks + 1"
}
