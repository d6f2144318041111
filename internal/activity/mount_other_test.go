//go:build !linux

package activity

import "errors"

func mountSmall(string) error { return errors.ErrUnsupported }

func unmount(string) error { return nil }

func mountReadOnly(string) error { return errors.ErrUnsupported }
