// go-containerregistry's registry, with the referrers API that the distribution
// registry lacks.
package main

import (
	"fmt"
	"net"
	"net/http"
	"os"

	"github.com/google/go-containerregistry/pkg/registry"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: ggcr-registry ADDRESS:PORT")
		os.Exit(2)
	}
	listener, err := net.Listen("tcp", os.Args[1])
	if err == nil {
		err = http.Serve(listener, registry.New(registry.WithReferrersSupport(true)))
	}
	fmt.Fprintln(os.Stderr, "ggcr-registry:", err)
	os.Exit(1)
}
