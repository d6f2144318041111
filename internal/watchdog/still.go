package watchdog

import "time"

// still is the search for windows without any activity.
type still struct {
	windows          int // in a row
	samples, running int // of the present window: all, and those with a runnable thread
	dur, cpu, wait   time.Duration
}

// add adds a sample. A wait for a disk or a page fault restarts the search.
//
// Running samples do not exclude a still window: the thread that sends beats runs now and then, and
// on a busy machine waits briefly for a CPU. A starved thread, in contrast, is runnable in every
// sample, although the kernel counts its wait only once it runs.
func (w *still) add(x *Sample) {
	if x.disk() {
		*w = still{}
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
	*w = still{windows: windows}
}

// percent returns part in percent of whole, 0 if whole is not positive.
func percent(part, whole time.Duration) float64 {
	if whole <= 0 {
		return 0
	}
	return 100 * float64(part) / float64(whole)
}
