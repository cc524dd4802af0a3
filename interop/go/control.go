package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"time"
)

const (
	// maxLine bounds a command: a frame of 1 MiB as hex, and some.
	maxLine = 4 << 20
	// a client of --control that doesn't read for so long is taken for gone
	clientTimeout = 5 * time.Second
)

// message is a reply or an event: one JSON object on a line of its own.
type message map[string]any

// output writes messages, from any goroutine, whole lines only.
type output struct {
	mu sync.Mutex
	w  io.Writer
}

// to changes where messages go; where they went before.
func (o *output) to(w io.Writer) io.Writer {
	o.mu.Lock()
	defer o.mu.Unlock()
	before := o.w
	o.w = w
	return before
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

// control reads commands until quit or the end of input and runs them one by one;
// whether it was quit.
func control(in io.Reader, out *output, commands map[string]command, timeout time.Duration) (bool, error) {
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
			return true, nil
		}
		out.send(runCommand(name, args, commands, timeout))
	}
	return false, lines.Err()
}

// serveControl takes commands from whoever connects with addr, one client after the
// other, until one says quit. A client is sent hello first, then its replies and the
// events; while there is none, events go where they went before.
func serveControl(addr string, out *output, hello message, commands map[string]command, timeout time.Duration) error {
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return fmt.Errorf("control: %w", err)
	}
	defer listener.Close()
	for {
		conn, err := listener.Accept()
		if err != nil {
			return fmt.Errorf("control: %w", err)
		}
		before := out.to(patient{conn})
		out.send(hello)
		quit, err := control(conn, out, commands, timeout)
		out.to(before)
		conn.Close()
		if err != nil {
			slog.Debug("control client lost", "error", err)
		}
		if quit {
			return nil
		}
	}
}

// patient writes to a client, but not for ever: nobody else is told anything meanwhile.
type patient struct{ net.Conn }

func (p patient) Write(data []byte) (int, error) {
	p.SetWriteDeadline(time.Now().Add(clientTimeout))
	n, err := p.Conn.Write(data)
	if err != nil {
		p.Close() // half a line may be out: nothing after it would be understood
	}
	return n, err
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
