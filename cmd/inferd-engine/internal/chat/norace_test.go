//go:build !race

package chat_test

const racing = false
