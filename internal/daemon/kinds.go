package daemon

import (
	"github.com/inferd-go/inferd/internal/backend"
	"github.com/inferd-go/inferd/internal/backend/engine"
	"github.com/inferd-go/inferd/internal/backend/mock"
)

// Kinds are the kinds of backends. A new kind is a package and a line here: config reads the settings
// of its entries through it, and the daemon starts them. The first kind is that of an entry of which
// nothing but the model is given.
var Kinds = []*backend.Kind{
	&engine.Kind,
	&mock.Kind,
}
