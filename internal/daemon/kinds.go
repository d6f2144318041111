package daemon

import (
	"github.com/inferd-go/inferd/internal/backend"
	"github.com/inferd-go/inferd/internal/backend/engine"
	"github.com/inferd-go/inferd/internal/backend/mock"
)

// Kinds are the kinds of backends, for package config. A new kind is a package and a line here:
// config reads the settings of its entries through it, and the daemon starts them. An entry with only
// a model is of the first kind.
var Kinds = []*backend.Kind{
	&engine.Kind,
	&mock.Kind,
}
