package watchdog

import "time"

// A stillness counts the windows in a row, of at least stillWindow each, in which the engine's process was
// inactive.
type stillness struct {
	windows          int           // completed, in a row
	samples, running int           // in the current window: all, and those with a runnable thread
	dur, cpu, wait   time.Duration // sums over the current window
}

// add adds a sample. A wait for the disk or a major page fault restarts the count.
//
// A window may count although some of its samples found a runnable thread: the thread that sends beats
// runs now and then, and waits briefly for a CPU on a busy machine. A starved thread, in contrast, is
// runnable in every sample. Its waiting time alone would not show that, because the kernel counts
// waiting time only once the thread runs.
func (w *stillness) add(x *Sample) {
	if x.disk() {
		*w = stillness{}
		return
	}
	w.samples++
	if x.Process == Running {
		w.running++
	}
	w.dur += x.Elapsed
	w.cpu += x.CPU
	w.wait += x.Wait
	if w.dur < stillWindow {
		return
	}
	windows := 0
	if percent(w.cpu, w.dur) < stillCPU && percent(w.wait, w.dur) < stillWait && w.running*stillRunning <= w.samples {
		windows = min(w.windows+1, stillWindows)
	}
	*w = stillness{windows: windows}
}

// percent returns part as a percentage of whole, or 0 if whole is not positive.
func percent(part, whole time.Duration) float64 {
	if whole <= 0 {
		return 0
	}
	return 100 * float64(part) / float64(whole)
}
