package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/inferd-go/inferd/internal/config"
	"github.com/inferd-go/inferd/internal/modelname"
	"github.com/inferd-go/inferd/internal/paths"
)

// configVerb checks, shows or writes the daemon's config file.
func (c *command) configVerb(_ context.Context, args []string) error {
	all, err := c.parseVerb(c.flags("config"), args, "check|show|init")
	if err != nil {
		return err
	}
	env := paths.Default()
	if all[0] == "init" { // an existing file is not checked
		return c.configInit(env)
	}
	flags, err := c.daemonFlags(env)
	if err != nil {
		return err
	}
	switch all[0] {
	case "check":
		return c.configCheck(&flags, env)
	case "show":
		text, warnings, err := config.Effective(&flags, env)
		for _, w := range warnings {
			c.warn(w)
		}
		if err != nil {
			return err
		}
		_, err = c.stdout.Write(text)
		return err
	}
	return fmt.Errorf("config does not take %q: check, show or init", all[0])
}

// daemonFlags returns the settings of a daemon that has no flag but --config.
func (c *command) daemonFlags(env paths.Env) (config.Flags, error) {
	var args []string
	if c.config != "" {
		args = []string{"--config", c.config}
	}
	return config.ParseFlags(args, env, kinds, io.Discard)
}

func (c *command) configCheck(flags *config.Flags, env paths.Env) error {
	file := cmp.Or(flags.ConfigFile, env.ConfigFile())
	cfg, err := config.Load(flags, env)
	for _, w := range cfg.Warnings {
		c.warn(w)
	}
	if err == nil {
		_, err = fmt.Fprintf(c.stdout, "%s: ok, %d entries\n", file, len(cfg.Backends))
		return err
	}
	return err
}

func (c *command) configInit(env paths.Env) error {
	flags, err := config.ParseFlags(nil, env, kinds, io.Discard)
	if err != nil {
		return err
	}
	file := cmp.Or(c.config, flags.ConfigFile, env.ConfigFile())
	text, err := flags.First(modelname.Embedded(), config.FirstModels...)
	if err != nil {
		return err
	}
	err = config.Write(file, text)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s is there already, and was not changed", file)
	}
	if err != nil {
		return fmt.Errorf("write the config file: %w", err)
	}
	_, err = fmt.Fprintln(c.stdout, file)
	return err
}
