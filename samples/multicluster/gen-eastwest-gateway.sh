#!/bin/sh
# Prints the options of an east-west gateway, to be piped into `isthmus install -y -f -`.
# Takes the flags of the walkthroughs: --mesh, --cluster, --network, --revision.
exec "${ISTHMUS:-isthmus}" gen-eastwest-gateway "$@"
