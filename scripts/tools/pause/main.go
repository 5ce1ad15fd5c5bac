// The process that holds a pod's namespaces: it waits.
package main

import (
	"os"
	"os/signal"
	"syscall"
)

func main() {
	wait := make(chan os.Signal, 1)
	signal.Notify(wait, syscall.SIGINT, syscall.SIGTERM)
	<-wait
}
