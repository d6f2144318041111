module github.com/inferd-go/inferd

go 1.26.0

require (
	github.com/ardanlabs/jinja v1.5.0
	github.com/ebitengine/purego v0.10.0
	github.com/go-json-experiment/json v1.27.2
	github.com/google/go-cmp v0.7.0
	github.com/hybridgroup/yzma v1.27.0
	golang.org/x/sys v0.43.0
	pgregory.net/rapid v1.3.0
)

require github.com/jupiterrider/ffi v0.7.0 // indirect
