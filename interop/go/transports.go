package main

import (
	stdtls "crypto/tls"
	"crypto/x509"
	"fmt"
	"os"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/sec"
	"github.com/libp2p/go-libp2p/core/transport"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	"github.com/libp2p/go-libp2p/p2p/net/upgrader"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
	libp2pquic "github.com/libp2p/go-libp2p/p2p/transport/quic"
	"github.com/libp2p/go-libp2p/p2p/transport/quicreuse"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	"github.com/libp2p/go-libp2p/p2p/transport/websocket"
	"github.com/quic-go/quic-go"
)

// transportOptions are what the command line says of transports.
type transportOptions struct {
	security string               // noise or tls, over TCP and WebSocket
	wssOwn   []stdtls.Certificate // the one to listen with on .../tls/ws, if there is one
	wssRoots *x509.CertPool       // who signs those of others; nil: whom the system trusts
}

func (o *transportOptions) setSecurity(name string) error {
	if name != "noise" && name != "tls" {
		return fmt.Errorf("expected noise or tls, got %q", name)
	}
	o.security = name
	return nil
}

// setCertificate takes a PEM file with a certificate and its key.
func (o *transportOptions) setCertificate(file string) error {
	pair, err := stdtls.LoadX509KeyPair(file, file)
	o.wssOwn = []stdtls.Certificate{pair}
	return err
}

func (o *transportOptions) setRoots(file string) error {
	pem, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	if o.wssRoots = x509.NewCertPool(); !o.wssRoots.AppendCertsFromPEM(pem) {
		return fmt.Errorf("expected certificates in %s", file)
	}
	return nil
}

// newTransports is where another transport, security or muxer goes in.
func newTransports(
	key crypto.PrivKey, opts transportOptions, resources network.ResourceManager,
) ([]transport.Transport, error) {
	muxers := []upgrader.StreamMuxer{{ID: yamux.ID, Muxer: yamux.DefaultTransport}}
	secure, err := newSecurity(opts.security, key, muxers)
	if err != nil {
		return nil, err
	}
	upgrade, err := upgrader.New([]sec.SecureTransport{secure}, muxers, nil, resources, nil)
	if err != nil {
		return nil, err
	}
	overTCP, err := tcp.NewTCPTransport(upgrade, resources, nil)
	if err != nil {
		return nil, err
	}
	wsOpts := []websocket.Option{websocket.WithTLSClientConfig(&stdtls.Config{RootCAs: opts.wssRoots})}
	if len(opts.wssOwn) > 0 {
		wsOpts = append(wsOpts, websocket.WithTLSConfig(&stdtls.Config{Certificates: opts.wssOwn}))
	}
	overWebSocket, err := websocket.New(upgrade, resources, nil, wsOpts...)
	if err != nil {
		return nil, err
	}
	sockets, err := quicreuse.NewConnManager(quic.StatelessResetKey{}, quic.TokenGeneratorKey{})
	if err != nil {
		return nil, err
	}
	overQUIC, err := libp2pquic.NewTransport(key, sockets, nil, nil, resources)
	if err != nil {
		return nil, err
	}
	return []transport.Transport{overTCP, overWebSocket, overQUIC}, nil
}

func newSecurity(name string, key crypto.PrivKey, muxers []upgrader.StreamMuxer) (sec.SecureTransport, error) {
	if name == "tls" {
		return libp2ptls.New(libp2ptls.ID, key, muxers)
	}
	return noise.New(noise.ID, key, muxers)
}
