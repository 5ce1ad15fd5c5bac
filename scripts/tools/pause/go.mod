// The sandbox image of the cluster that tests run on.
module mailfleet.dev/pause

go 1.24.0
