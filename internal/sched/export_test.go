package sched

// Remembered returns how many flows, on all levels, the queue keeps.
func (q *Queue[T]) Remembered() int { return q.root.size() - 1 }

func (n *node[T]) size() int {
	size := 1
	for _, c := range n.children {
		size += c.size()
	}
	return size
}
