package probe

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"time"
)

// resend is the pause between two tries of one probe: one lost packet is no lost way out.
const resend = 300 * time.Millisecond

// ICMP types of RFC 792 and RFC 4443.
const (
	echoRequest4, echoReply4 = 8, 0
	echoRequest6, echoReply6 = 128, 129
)

// icmp sends echo requests until the target answers or ctx ends. It needs CAP_NET_RAW.
func icmp(ctx context.Context, target string) error {
	addr, err := netip.ParseAddr(target)
	if err != nil {
		return err
	}
	network, request, reply := "ip4:icmp", byte(echoRequest4), byte(echoReply4)
	if addr.Is6() {
		network, request, reply = "ip6:ipv6-icmp", echoRequest6, echoReply6
	}
	var d net.Dialer
	c, err := d.DialContext(ctx, network, target)
	if err != nil {
		return err
	}
	defer c.Close()
	// 16 random bytes make the answer ours alone: raw sockets see every reply on the host.
	var token [16]byte
	for i := 0; i < len(token); i += 8 {
		binary.BigEndian.PutUint64(token[i:], rand.Uint64())
	}
	msg := echo(request, token[:])
	return exchange(ctx, c, msg, func(b []byte) bool {
		if addr.Is4() && len(b) > 0 { // raw(7): IPv4 comes with its header, whose length is in 4-byte words
			b = b[min(len(b), int(b[0]&15)*4):]
		}
		return len(b) >= len(msg) && b[0] == reply && bytes.Equal(b[8:len(msg)], token[:])
	})
}

// echo is an echo message; the kernel fills the checksum of ICMPv6 (RFC 3542 section 3.1), and overwrites ours there.
func echo(kind byte, payload []byte) []byte {
	b := make([]byte, 8, 8+len(payload))
	b[0] = kind
	b = append(b, payload...)
	binary.BigEndian.PutUint16(b[2:], checksum(b))
	return b
}

// checksum is the Internet checksum, RFC 1071. The length must be even.
func checksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}

// exchange writes msg every resend and reads until wanted accepts a packet or ctx ends.
func exchange(ctx context.Context, c net.Conn, msg []byte, wanted func([]byte) bool) error {
	var last error
	buf := make([]byte, 1500)
	for ctx.Err() == nil {
		if _, err := c.Write(msg); err != nil {
			last = err // "no route" now may be a route in a moment
		}
		until := time.Now().Add(resend)
		if d, ok := ctx.Deadline(); ok && d.Before(until) {
			until = d
		}
		if err := c.SetReadDeadline(until); err != nil {
			return err
		}
		for {
			n, err := c.Read(buf)
			if err != nil {
				if ne, ok := err.(net.Error); !ok || !ne.Timeout() {
					last = err
					sleep(ctx, time.Until(until))
				}
				break
			}
			if wanted(buf[:n]) {
				return nil
			}
		}
	}
	if last != nil {
		return fmt.Errorf("no answer: %w", last)
	}
	return fmt.Errorf("no answer: %w", ctx.Err())
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
