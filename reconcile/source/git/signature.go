package git

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/pem"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/object"
	"golang.org/x/crypto/ssh"

	"danm.io/danm/reconcile/source/snapshot"
	"danm.io/danm/spec/diag"
)

// maxSigners bounds the file of keys, bytes.
const maxSigners = 1 << 20

// signers are the keys whose signature on a commit counts.
type signers struct {
	pgp openpgp.EntityList
	ssh []sshSigner
}

// sshSigner is one line of an allowed_signers file (ssh-keygen(1), "ALLOWED SIGNERS").
type sshSigner struct {
	key           ssh.PublicKey
	after, before time.Time // zero: no bound
}

// verify holds a commit to the keys in a file: armoured OpenPGP public keys, or the lines of an allowed_signers file. The
// file is read anew each time, so that a revoked key needs no restart. SignatureInvalid if the commit is not signed by one of
// them; nothing is trusted because of who serves it.
func verify(c *object.Commit, file string, now time.Time) error {
	known, err := readSigners(file)
	if err != nil {
		return snapshot.Errorf(diag.SignatureInvalid, "keys to verify commits with: %w", err)
	}
	if c.PGPSignature == "" {
		return snapshot.Errorf(diag.SignatureInvalid, "commit %s is not signed", short(c.Hash))
	}
	unsigned := &plumbing.MemoryObject{}
	if err := c.EncodeWithoutSignature(unsigned); err != nil {
		return corrupt("commit %s", c.Hash, err)
	}
	r, err := unsigned.Reader()
	if err != nil {
		return corrupt("commit %s", c.Hash, err)
	}
	defer r.Close()
	message, err := io.ReadAll(r)
	if err != nil {
		return corrupt("commit %s", c.Hash, err)
	}
	if err := known.check(message, c.PGPSignature, now); err != nil {
		return snapshot.Errorf(diag.SignatureInvalid, "commit %s: %w", short(c.Hash), err)
	}
	return nil
}

func short(h plumbing.Hash) string { return h.String()[:7] }

func readSigners(file string) (signers, error) {
	f, err := os.Open(file)
	if err != nil {
		return signers{}, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxSigners+1))
	if err != nil {
		return signers{}, err
	}
	if len(data) > maxSigners {
		return signers{}, fmt.Errorf("%s is over %d bytes", file, maxSigners)
	}
	s, err := parseSigners(data)
	if err != nil {
		return signers{}, fmt.Errorf("%s: %w", file, err)
	}
	return s, nil
}

const pgpBegin = "-----BEGIN PGP PUBLIC KEY BLOCK-----"

// parseSigners tells the two formats apart by OpenPGP's first line; a file has one of them.
func parseSigners(data []byte) (s signers, err error) {
	if bytes.Contains(data, []byte(pgpBegin)) {
		for _, block := range strings.Split(string(data), pgpBegin)[1:] {
			list, err := openpgp.ReadArmoredKeyRing(strings.NewReader(pgpBegin + block))
			if err != nil {
				return s, fmt.Errorf("OpenPGP key: %w", err)
			}
			s.pgp = append(s.pgp, list...)
		}
		return s, nil
	}
	for i, line := range strings.Split(string(data), "\n") {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		signer, counts, err := parseAllowedSigner(line)
		if err != nil {
			return s, fmt.Errorf("line %d: %w", i+1, err)
		}
		if counts {
			s.ssh = append(s.ssh, signer)
		}
	}
	if len(s.ssh) == 0 {
		return s, errors.New("no key for signing commits")
	}
	return s, nil
}

// parseAllowedSigner reads "principals [options] type key". counts is false for a key that is not for the namespace git.
func parseAllowedSigner(line string) (s sshSigner, counts bool, err error) {
	_, rest, ok := strings.Cut(line, " ") // principals: who signs is not asked, only whether one of these keys did
	if !ok {
		return s, false, errors.New("expected principals, options, key type and key")
	}
	key, _, options, more, err := ssh.ParseAuthorizedKey([]byte(rest))
	if err != nil || len(more) > 0 {
		return s, false, errors.New("no ssh public key")
	}
	s.key, counts = key, true
	for _, o := range options {
		name, value, _ := strings.Cut(o, "=")
		value = strings.Trim(value, `"`)
		switch strings.ToLower(name) {
		case "namespaces":
			counts = slices.Contains(strings.Split(value, ","), "git")
		case "valid-after":
			s.after, err = signerTime(value)
		case "valid-before":
			s.before, err = signerTime(value)
		default: // cert-authority among them: a constraint that is not understood must not be dropped
			return s, false, fmt.Errorf("option %q is not supported", name)
		}
		if err != nil {
			return s, false, fmt.Errorf("option %s: %w", name, err)
		}
	}
	return s, counts, nil
}

// signerTime reads YYYYMMDD[HHMM[SS]][Z]; without Z it is local time.
func signerTime(value string) (time.Time, error) {
	zone := time.Local
	if text, utc := strings.CutSuffix(value, "Z"); utc {
		value, zone = text, time.UTC
	}
	for _, layout := range []string{"20060102", "200601021504", "20060102150405"} {
		if len(value) == len(layout) {
			return time.ParseInLocation(layout, value, zone)
		}
	}
	return time.Time{}, fmt.Errorf("%q is no date", value)
}

// check says whether one of the keys signed the message.
func (s signers) check(message []byte, signature string, now time.Time) error {
	block, _ := pem.Decode([]byte(signature))
	if block == nil || block.Type != "SSH SIGNATURE" {
		if len(s.pgp) == 0 {
			return errors.New("signed with OpenPGP, but the keys are ssh keys")
		}
		if _, err := openpgp.CheckArmoredDetachedSignature(s.pgp, bytes.NewReader(message), strings.NewReader(signature), nil); err != nil {
			return fmt.Errorf("the OpenPGP signature is not by a known key, or is bad: %w", err)
		}
		return nil
	}
	if len(s.ssh) == 0 {
		return errors.New("signed with ssh, but the keys are OpenPGP keys")
	}
	return s.checkSSH(message, block.Bytes, now)
}

// sshsig is what an ssh signature holds (OpenSSH, PROTOCOL.sshsig, section "Signature format").
type sshsig struct {
	Magic         [6]byte
	Version       uint32
	PublicKey     string
	Namespace     string
	Reserved      string
	HashAlgorithm string
	Signature     string
}

func (s signers) checkSSH(message, blob []byte, now time.Time) error {
	var sig sshsig
	if err := ssh.Unmarshal(blob, &sig); err != nil || string(sig.Magic[:]) != "SSHSIG" || sig.Version != 1 {
		return errors.New("the ssh signature cannot be read")
	}
	if sig.Namespace != "git" {
		return fmt.Errorf("the ssh signature was made for %q, not for git", clipped(sig.Namespace))
	}
	var h hash.Hash
	switch sig.HashAlgorithm {
	case "sha256":
		h = sha256.New()
	case "sha512":
		h = sha512.New()
	default:
		return errors.New("the ssh signature's hash is neither sha256 nor sha512")
	}
	h.Write(message)
	signed := append([]byte("SSHSIG"), ssh.Marshal(struct{ Namespace, Reserved, HashAlgorithm, Hash string }{sig.Namespace, sig.Reserved, sig.HashAlgorithm, string(h.Sum(nil))})...)
	var wire ssh.Signature
	if err := ssh.Unmarshal([]byte(sig.Signature), &wire); err != nil {
		return errors.New("the ssh signature cannot be read")
	}
	if wire.Format == ssh.KeyAlgoRSA { // SHA-1; PROTOCOL.sshsig forbids it
		return errors.New("the ssh signature uses SHA-1")
	}
	for _, known := range s.ssh {
		if string(known.key.Marshal()) != sig.PublicKey {
			continue
		}
		if !known.after.IsZero() && now.Before(known.after) || !known.before.IsZero() && !now.Before(known.before) {
			return errors.New("the key that signed is not valid now")
		}
		if err := known.key.Verify(signed, &wire); err != nil {
			return errors.New("the ssh signature does not fit the commit")
		}
		return nil
	}
	return errors.New("signed by an ssh key that is not among the allowed signers")
}

func clipped(s string) string {
	if len(s) > 64 {
		return s[:64] + "..."
	}
	return s
}
