// Command app is what the images of the tests' pods hold: a process that answers HTTP with its own word, and
// ends when it is asked to.
//
//	app serve ADDRESS WORD     answer every request with WORD
//	app pause                  wait; what a sandbox image is for
package main

import (
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGTERM, syscall.SIGINT)
	if len(os.Args) == 4 && os.Args[1] == "serve" {
		word := os.Args[3]
		handler := http.HandlerFunc(func(answer http.ResponseWriter, _ *http.Request) { fmt.Fprintln(answer, word) })
		go func() {
			fmt.Fprintln(os.Stderr, http.ListenAndServe(os.Args[2], handler))
			os.Exit(1)
		}()
	} else if len(os.Args) != 2 || os.Args[1] != "pause" {
		fmt.Fprintln(os.Stderr, "usage: app serve ADDRESS WORD | app pause")
		os.Exit(2)
	}
	<-end
}
