package main

import (
	"testing"

	"github.com/inferd-go/inferd/internal/config"
)

func TestLogsJSON(t *testing.T) {
	journal := map[string]string{"JOURNAL_STREAM": "9:123"}
	for name, test := range map[string]struct {
		format string
		env    map[string]string
		device bool
		want   bool
	}{
		"a pipe":                            {config.LogAuto, nil, false, false},
		"a terminal":                        {config.LogAuto, nil, true, false},
		"the journal":                       {config.LogAuto, journal, false, true},
		"a terminal that systemd started":   {config.LogAuto, journal, true, false},
		"systemd, to a file":                {config.LogAuto, map[string]string{"INVOCATION_ID": "1f"}, false, true},
		"launchd":                           {config.LogAuto, map[string]string{"XPC_SERVICE_NAME": "org.inferd"}, false, true},
		"macOS, but not started by launchd": {config.LogAuto, map[string]string{"XPC_SERVICE_NAME": "0"}, false, false},
		"the journal, but text is wanted":   {config.LogText, journal, false, false},
		"a terminal, but JSON is wanted":    {config.LogJSON, nil, true, true},
	} {
		t.Run(name, func(t *testing.T) {
			if got := logsJSON(test.format, func(key string) string { return test.env[key] }, test.device); got != test.want {
				t.Errorf("logsJSON = %t, want %t", got, test.want)
			}
		})
	}
}
