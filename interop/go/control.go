package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"time"
)

// maxLine bounds a command: a frame of 1 MiB as hex, and some.
const maxLine = 4 << 20

// message is a reply or an event: one JSON object on a line of its own.
type message map[string]any

// output writes messages, from any goroutine, whole lines only.
type output struct {
	mu sync.Mutex
	w  io.Writer
}

func (o *output) send(m message) {
	line, err := json.Marshal(m)
	if err != nil {
		slog.Error("message not sent", "error", err)
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if _, err := o.w.Write(append(line, '\n')); err != nil {
		slog.Error("message not sent", "error", err)
	}
}

// command runs one command. What it returns goes into the reply, also besides
// an error.
type command struct {
	usage string
	args  int // at least
	run   func(ctx context.Context, args []string) (message, error)
}

// control reads commands until quit or the end of input and runs them one by one.
func control(in io.Reader, out *output, commands map[string]command, timeout time.Duration) error {
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, maxLine)
	for lines.Scan() {
		words := strings.Fields(lines.Text())
		if len(words) == 0 {
			continue
		}
		name, args := words[0], words[1:]
		if name == "quit" {
			out.send(message{"reply": name, "ok": true})
			return nil
		}
		out.send(runCommand(name, args, commands, timeout))
	}
	return lines.Err()
}

func runCommand(name string, args []string, commands map[string]command, timeout time.Duration) message {
	reply := message{}
	cmd, ok := commands[name]
	var err error
	switch {
	case !ok:
		err = fmt.Errorf("unknown command %q", name)
	case len(args) < cmd.args:
		err = fmt.Errorf("usage: %s %s", name, cmd.usage)
	default:
		ctx, cancel := context.WithTimeout(context.Background(), timeout)
		defer cancel()
		var result message
		if result, err = cmd.run(ctx, args); result != nil {
			reply = result
		}
	}
	reply["reply"], reply["ok"] = name, err == nil
	if err != nil {
		reply["error"] = err.Error()
	}
	return reply
}
