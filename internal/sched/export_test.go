package sched

// Preempted reports whether j has run and now waits to run again.
func (j *Job[T]) Preempted() bool { return j.started > 0 && !j.running && j.leaf != nil }

// Remembered returns the number of flows, on all levels, in the queue.
func (q *Queue[T]) Remembered() int { return q.root.size() - 1 }

func (n *node[T]) size() int {
	size := 1
	for _, c := range n.children {
		size += c.size()
	}
	return size
}
