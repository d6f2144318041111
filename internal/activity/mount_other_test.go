//go:build !linux

package activity

import (
	"errors"
	"os"
)

func mountSmall(string) error { return errors.ErrUnsupported }

func unmount(string) error { return nil }

func mountReadOnly(string) error { return errors.ErrUnsupported }

func redirect(*os.File, string) error { return errors.ErrUnsupported }
