package main

import (
	"bufio"
	"fmt"
	"io"

	"github.com/multiformats/go-varint"
)

// readFrame reads one frame: an unsigned varint length, then that many bytes.
// It returns io.EOF only at a frame's boundary.
func readFrame(r *bufio.Reader, bound uint64) ([]byte, error) {
	length, err := varint.ReadUvarint(r)
	if err != nil {
		return nil, err
	}
	if length > bound {
		return nil, fmt.Errorf("frame of %d bytes, at most %d allowed", length, bound)
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
	_, err := w.Write(append(varint.ToUvarint(uint64(len(frame))), frame...))
	return err
}
