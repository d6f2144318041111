package daemon

import (
	"github.com/inferd-go/inferd/internal/backend"
	"github.com/inferd-go/inferd/internal/backend/engine"
	"github.com/inferd-go/inferd/internal/backend/mock"
)

// Kinds are the kinds of backends, for package config. A new kind needs a package and a line here.
// Through its value, config reads the settings of its entries, and the daemon starts their
// backends. An entry that names only a model is of the first kind.
var Kinds = []*backend.Kind{
	&engine.Kind,
	&mock.Kind,
}
