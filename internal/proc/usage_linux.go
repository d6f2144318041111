package proc

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// usageOf reads the figures of a process and of each of its threads, by thread number. It needs the
// threads because /proc/PID/schedstat and the state in /proc/PID/stat cover only the main thread.
func usageOf(pid int) (Usage, map[int]threadUsage, error) {
	dir := "/proc/" + strconv.Itoa(pid)
	main, err := statOf(dir + "/stat")
	if err != nil {
		return Usage{}, nil, err
	}
	u := Usage{State: main.state, Faults: main.faults}
	if u.Tracer, err = tracerOf(dir + "/status"); err != nil {
		return Usage{}, nil, err
	}
	tasks, err := os.ReadDir(dir + "/task")
	if err != nil {
		return Usage{}, nil, err
	}
	threads := make(map[int]threadUsage, len(tasks))
	for _, task := range tasks {
		id, err := strconv.Atoi(task.Name())
		if err != nil {
			return Usage{}, nil, err
		}
		stat, err := statOf(dir + "/task/" + task.Name() + "/stat")
		if gone(err) {
			continue
		}
		if err != nil {
			return Usage{}, nil, err
		}
		used, err := schedstatOf(dir + "/task/" + task.Name() + "/schedstat")
		if gone(err) {
			continue
		}
		if err != nil {
			return Usage{}, nil, err
		}
		threads[id] = used
		if u.State != 'T' && (stat.state == 'D' || stat.state == 'R' && u.State != 'D') {
			u.State = stat.state
		}
	}
	return u, threads, nil
}

// gone reports whether err means that a file of /proc could not be read because its thread has ended.
func gone(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) }

type stat struct {
	state  byte
	faults int64 // major
}

// statOf reads a stat file. It looks for the last parenthesis first: the fields follow the program's
// name, which may contain any bytes.
func statOf(path string) (stat, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return stat{}, err
	}
	fields := bytes.Fields(raw[bytes.LastIndexByte(raw, ')')+1:])
	if len(fields) < 10 {
		return stat{}, fmt.Errorf("%s: %d fields", path, len(fields))
	}
	faults, err := strconv.ParseInt(string(fields[9]), 10, 64) // field 12 of proc(5)
	if err != nil {
		return stat{}, fmt.Errorf("%s: %w", path, err)
	}
	return stat{state: fields[0][0], faults: faults}, nil
}

// schedstatOf reads the times for which a thread has run and has waited for a CPU, in nanoseconds.
func schedstatOf(path string) (u threadUsage, err error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return threadUsage{}, err
	}
	if _, err := fmt.Sscan(string(raw), &u.cpu, &u.wait); err != nil {
		return threadUsage{}, fmt.Errorf("%s: %w", path, err)
	}
	return u, nil
}

// tracerOf reads TracerPid from a status file.
func tracerOf(path string) (int, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	_, rest, ok := bytes.Cut(raw, []byte("\nTracerPid:"))
	if !ok {
		return 0, fmt.Errorf("%s: no TracerPid", path)
	}
	line, _, _ := bytes.Cut(rest, []byte("\n"))
	return strconv.Atoi(string(bytes.TrimSpace(line)))
}

// frozenOf reports whether the process's cgroup of version 2 is frozen. Cgroups of version 1 are not
// read: a process in a frozen one is in state D, which usageOf reports.
func frozenOf(pid int) (bool, error) {
	raw, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cgroup")
	if err != nil {
		return false, err
	}
	mount, err := cgroupMount()
	if err != nil {
		return false, err
	}
	for line := range strings.Lines(string(raw)) {
		group, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "0::")
		if !ok || mount == "" {
			continue
		}
		events, err := os.ReadFile(filepath.Join(mount, group, "cgroup.events"))
		if errors.Is(err, fs.ErrNotExist) {
			return false, nil // the root cgroup has no such file, and cannot be frozen
		}
		return strings.Contains("\n"+string(events), "\nfrozen 1"), err
	}
	return false, nil
}

// cgroupMount returns the folder where cgroups of version 2 are mounted, or "" if they are not mounted.
func cgroupMount() (string, error) {
	raw, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(raw)) {
		before, after, ok := strings.Cut(line, " - ")
		fields := strings.Fields(before)
		if ok && len(fields) > 4 && strings.HasPrefix(after, "cgroup2 ") {
			return fields[4], nil
		}
	}
	return "", nil
}

func suspendedTime() time.Duration {
	var boot, monotone unix.Timespec
	if unix.ClockGettime(unix.CLOCK_MONOTONIC, &monotone) != nil || unix.ClockGettime(unix.CLOCK_BOOTTIME, &boot) != nil {
		return 0
	}
	return time.Duration(boot.Nano() - monotone.Nano())
}
