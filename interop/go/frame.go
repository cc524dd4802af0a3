package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"

	"github.com/multiformats/go-varint"
)

var errFrameTooLarge = errors.New("frame too large")

// readFrame reads one frame: an unsigned varint length, then that many bytes.
// It returns io.EOF only at a frame's boundary.
func readFrame(r *bufio.Reader, bound uint64) ([]byte, error) {
	length, err := varint.ReadUvarint(r)
	if err != nil {
		return nil, err
	}
	if length > bound {
		return nil, fmt.Errorf("%w: %d bytes, at most %d allowed", errFrameTooLarge, length, bound)
	}
	frame := make([]byte, length)
	if _, err := io.ReadFull(r, frame); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	return frame, nil
}

// writeFrame writes length and bytes at once, so that they share a packet.
func writeFrame(w io.Writer, frame []byte) error {
	_, err := w.Write(frameOf(frame))
	return err
}

func frameOf(b []byte) []byte {
	return append(varint.ToUvarint(uint64(len(b))), b...)
}
