//go:build tools

package helmunittest

import _ "github.com/helm-unittest/helm-unittest/cmd/helm-unittest"
