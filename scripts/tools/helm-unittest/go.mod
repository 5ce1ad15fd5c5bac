// helm-unittest replaces a module, which `go install` refuses; its go.sum pins every module.
module mailfleet.dev/helm-unittest

go 1.26.0

require github.com/helm-unittest/helm-unittest v1.1.2

replace github.com/vmware-labs/yaml-jsonpath v0.3.2 => github.com/helm-unittest/yaml-jsonpath v0.4.0
