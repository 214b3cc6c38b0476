// Command cri asks a container runtime for images through the Container Runtime Interface, as the kubelet does.
//
//	cri SOCKET pull IMAGE     pull an image and print its reference
//	cri SOCKET list           print one line per image: ID, pinned or -, names
//	cri SOCKET remove IMAGE   remove an image
package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// A pull that takes longer has failed: the tests' images are a few kilobytes.
const patience = 2 * time.Minute

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) < 2 {
		return fmt.Errorf("usage: cri SOCKET pull|list|remove [IMAGE]")
	}
	connection, err := grpc.NewClient("unix://"+args[0], grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer connection.Close()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	images := runtime.NewImageServiceClient(connection)

	switch command, rest := args[1], args[2:]; {
	case command == "pull" && len(rest) == 1:
		answer, err := images.PullImage(ctx, &runtime.PullImageRequest{Image: &runtime.ImageSpec{Image: rest[0]}})
		if err != nil {
			return err
		}
		fmt.Println(answer.ImageRef)
	case command == "list" && len(rest) == 0:
		answer, err := images.ListImages(ctx, &runtime.ListImagesRequest{})
		if err != nil {
			return err
		}
		for _, image := range answer.Images {
			pinned := "-"
			if image.Pinned {
				pinned = "pinned"
			}
			names := append(append([]string{}, image.RepoTags...), image.RepoDigests...)
			fmt.Println(image.Id, pinned, strings.Join(names, " "))
		}
	case command == "remove" && len(rest) == 1:
		_, err := images.RemoveImage(ctx, &runtime.RemoveImageRequest{Image: &runtime.ImageSpec{Image: rest[0]}})
		return err
	default:
		return fmt.Errorf("usage: cri SOCKET pull|list|remove [IMAGE]")
	}
	return nil
}
