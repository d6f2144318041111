package admit

import "github.com/inferd-go/inferd/internal/infer"

// Charge charges the caller of req for tokens of work that needed no slot.
func (g *Gate) Charge(req *infer.Request, tokens int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.machine.ChargeFlow(flowOf(req), tokens)
}
