module countersign.dev/e2e/tools/netns

go 1.26.0
