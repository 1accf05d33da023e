package git_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha512"
	"encoding/pem"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	gogit "github.com/go-git/go-git/v5"
	"github.com/go-git/go-git/v5/plumbing/object"
	"golang.org/x/crypto/ssh"

	"danm.io/danm/reconcile/source/git"
	"danm.io/danm/reconcile/source/snapshot"
	"danm.io/danm/spec/diag"
)

// signedByGit is a repository with one commit that git itself signed with a fresh ssh key, and the key's public line.
func signedByGit(t *testing.T, kind string, more ...string) (dir, public string) {
	t.Helper()
	for _, program := range []string{"git", "ssh-keygen"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skip("no ", program)
		}
	}
	home := t.TempDir()
	dir = filepath.Join(home, "repo")
	key := filepath.Join(home, "key")
	run := func(program string, args ...string) {
		t.Helper()
		cmd := exec.Command(program, args...)
		cmd.Dir = home
		cmd.Env = append(os.Environ(), "HOME="+home, "GIT_CONFIG_NOSYSTEM=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s %v: %v\n%s", program, args, err, out)
		}
	}
	run("ssh-keygen", "-q", "-t", kind, "-N", "", "-f", key, "-C", "admin@example.org")
	run("git", "init", "-q", "-b", "main", dir)
	if err := os.WriteFile(filepath.Join(dir, "a.yaml"), []byte("a"), 0o644); err != nil {
		t.Fatal(err)
	}
	run("git", "-C", dir, "add", ".")
	args := append([]string{"-C", dir, "-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "gpg.format=ssh", "-c", "user.signingkey=" + key}, more...)
	run("git", append(args, "commit", "-q", "-S", "-m", "signed")...)
	data, err := os.ReadFile(key + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	return dir, strings.TrimSpace(string(data))
}

func fetchSigned(t *testing.T, repo, keys string) error {
	t.Helper()
	o := options(repo)
	o.Signers = filepath.Join(t.TempDir(), "signers")
	if err := os.WriteFile(o.Signers, []byte(keys), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := git.New(o).Fetch(context.Background())
	if err != nil && len(s.Files) > 0 {
		t.Error("files in spite of an error")
	}
	return err
}

func TestSSHSignatures(t *testing.T) {
	const otherKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBmMmsiZ3ylqGBVJbbXzFVwAdxqkm+mmg6yqdAH3Ol7n"
	for _, kind := range []string{"ed25519", "ecdsa", "rsa"} {
		repo, key := signedByGit(t, kind)
		for _, r := range []struct {
			name, keys string
			good       bool
		}{
			{"known", "admin@example.org " + key, true},
			{"among others", "# ours\n\nbob " + otherKey + "\nadmin,alice namespaces=\"git,file\" " + key + "\n", true},
			{"valid", "admin valid-after=\"20200101\",valid-before=\"29991231235959Z\" " + key, true},
			{"unknown", "bob " + otherKey, false},
			{"for something else", "admin namespaces=\"file\" " + key + "\nbob " + otherKey, false},
			{"expired", "admin valid-before=\"20200101\" " + key, false},
			{"not yet", "admin valid-after=\"299912312359\" " + key, false},
			{"an authority", "admin cert-authority " + key, false},
			{"nonsense", "admin nonsense", false},
			{"empty", "# nobody\n", false},
		} {
			err := fetchSigned(t, repo, r.keys)
			if r.good && err != nil || !r.good && snapshot.Code(err) != diag.SignatureInvalid {
				t.Errorf("%s, %s: %v", kind, r.name, err)
			}
		}
	}
}

// A commit with another's signature: what was signed is not what is there.
func TestForgedCommit(t *testing.T) {
	dir, key := signedByGit(t, "ed25519")
	repo, err := gogit.PlainOpen(dir)
	if err != nil {
		t.Fatal(err)
	}
	head, err := repo.Head()
	if err != nil {
		t.Fatal(err)
	}
	c, err := repo.CommitObject(head.Hash())
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*object.Commit){
		"message":       func(c *object.Commit) { c.Message = "other\n" },
		"no signature":  func(c *object.Commit) { c.PGPSignature = "" },
		"cut signature": func(c *object.Commit) { c.PGPSignature = c.PGPSignature[:60] + "\n-----END SSH SIGNATURE-----\n" },
		"garbage": func(c *object.Commit) {
			c.PGPSignature = "-----BEGIN SSH SIGNATURE-----\nU1NIU0lH\n-----END SSH SIGNATURE-----\n"
		},
	} {
		forged := *c
		change(&forged)
		o := repo.Storer.NewEncodedObject()
		if err := forged.Encode(o); err != nil {
			t.Fatal(err)
		}
		h, err := repo.Storer.SetEncodedObject(o)
		if err != nil {
			t.Fatal(err)
		}
		opts := options(dir)
		opts.Ref, opts.Signers = h.String(), filepath.Join(t.TempDir(), "signers")
		if err := os.WriteFile(opts.Signers, []byte("admin "+key), 0o600); err != nil {
			t.Fatal(err)
		}
		wantCode(t, opts, diag.SignatureInvalid)
		opts.Signers = "" // the control: the commit itself is readable
		if _, err := git.New(opts).Fetch(context.Background()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A signature made for another purpose is none on a commit, although key and bytes fit.
func TestSignatureForAnotherNamespace(t *testing.T) {
	dir, key := signedByGit(t, "ed25519")
	repo, err := gogit.PlainOpen(dir)
	if err != nil {
		t.Fatal(err)
	}
	head, _ := repo.Head()
	c, err := repo.CommitObject(head.Hash())
	if err != nil {
		t.Fatal(err)
	}
	unsigned := repo.Storer.NewEncodedObject()
	if err := c.EncodeWithoutSignature(unsigned); err != nil {
		t.Fatal(err)
	}
	r, err := unsigned.Reader()
	if err != nil {
		t.Fatal(err)
	}
	message := filepath.Join(t.TempDir(), "message")
	var buf bytes.Buffer
	if _, err := buf.ReadFrom(r); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(message, buf.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, namespace := range []string{"git", "file"} {
		cmd := exec.Command("ssh-keygen", "-q", "-Y", "sign", "-f", filepath.Join(filepath.Dir(dir), "key"), "-n", namespace)
		cmd.Stdin = bytes.NewReader(buf.Bytes())
		sig, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		again := *c
		again.PGPSignature = string(sig)
		o := repo.Storer.NewEncodedObject()
		if err := again.Encode(o); err != nil {
			t.Fatal(err)
		}
		h, err := repo.Storer.SetEncodedObject(o)
		if err != nil {
			t.Fatal(err)
		}
		opts := options(dir)
		opts.Ref, opts.Signers = h.String(), filepath.Join(t.TempDir(), "signers")
		if err := os.WriteFile(opts.Signers, []byte("admin "+key), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := git.New(opts).Fetch(context.Background()); (err == nil) != (namespace == "git") {
			t.Errorf("namespace %s: %v", namespace, err)
		}
	}
}

// SHA-1 no longer says who signed: the same key counts with SHA-512 only.
func TestSignatureWithSHA1(t *testing.T) {
	dir, key := signedByGit(t, "rsa")
	private := must(os.ReadFile(filepath.Join(filepath.Dir(dir), "key")))(t)
	signer, ok := must(ssh.ParsePrivateKey(private))(t).(ssh.AlgorithmSigner)
	if !ok {
		t.Fatal("the key cannot choose its algorithm")
	}
	repo := must(gogit.PlainOpen(dir))(t)
	head := must(repo.Head())(t)
	c := must(repo.CommitObject(head.Hash()))(t)
	unsigned := repo.Storer.NewEncodedObject()
	if err := c.EncodeWithoutSignature(unsigned); err != nil {
		t.Fatal(err)
	}
	message := must(io.ReadAll(must(unsigned.Reader())(t)))(t)
	sum := sha512.Sum512(message)
	for algorithm, good := range map[string]bool{ssh.KeyAlgoRSASHA512: true, ssh.KeyAlgoRSA: false} {
		// OpenSSH, PROTOCOL.sshsig
		signed := append([]byte("SSHSIG"), ssh.Marshal(struct{ Namespace, Reserved, Hash, Sum string }{"git", "", "sha512", string(sum[:])})...)
		sig := must(signer.SignWithAlgorithm(rand.Reader, signed, algorithm))(t)
		blob := append([]byte("SSHSIG"), ssh.Marshal(struct {
			Version                                uint32
			Key, Namespace, Reserved, Hash, Signed string
		}{1, string(signer.PublicKey().Marshal()), "git", "", "sha512", string(ssh.Marshal(sig))})...)
		again := *c
		again.PGPSignature = string(pem.EncodeToMemory(&pem.Block{Type: "SSH SIGNATURE", Bytes: blob}))
		o := repo.Storer.NewEncodedObject()
		if err := again.Encode(o); err != nil {
			t.Fatal(err)
		}
		opts := options(dir)
		opts.Ref, opts.Signers = must(repo.Storer.SetEncodedObject(o))(t).String(), file(t, []byte("admin "+key))
		if _, err := git.New(opts).Fetch(context.Background()); good && err != nil || !good && snapshot.Code(err) != diag.SignatureInvalid {
			t.Errorf("%s: %v", algorithm, err)
		}
	}
}

func pgpEntity(t *testing.T, name string) (*openpgp.Entity, string) {
	t.Helper()
	e, err := openpgp.NewEntity(name, "", name+"@example.org", nil)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	w, err := armor.Encode(&b, openpgp.PublicKeyType, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Serialize(w); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return e, b.String()
}

func TestOpenPGPSignatures(t *testing.T) {
	admin, adminKey := pgpEntity(t, "admin")
	_, otherKey := pgpEntity(t, "other")
	dir := t.TempDir()
	repo, err := gogit.PlainInit(dir, false)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "a.yaml"), []byte("a"), 0o644); err != nil {
		t.Fatal(err)
	}
	w, err := repo.Worktree()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Add("a.yaml"); err != nil {
		t.Fatal(err)
	}
	who := &object.Signature{Name: "a", Email: "a@example.org", When: time.Now()}
	if _, err := w.Commit("signed", &gogit.CommitOptions{Author: who, SignKey: admin}); err != nil {
		t.Fatal(err)
	}
	for _, r := range []struct {
		name, keys string
		good       bool
	}{
		{"known", adminKey, true}, {"two blocks", otherKey + "\n" + adminKey, true}, {"unknown", otherKey, false},
		{"ssh keys only", "admin ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBmMmsiZ3ylqGBVJbbXzFVwAdxqkm+mmg6yqdAH3Ol7n", false},
		{"damaged", strings.Replace(adminKey, "\n\n", "\n\nAAAA", 1), false},
	} {
		err := fetchSigned(t, dir, r.keys)
		if r.good && err != nil || !r.good && snapshot.Code(err) != diag.SignatureInvalid {
			t.Errorf("%s: %v", r.name, err)
		}
	}
	o := options(dir)
	o.Signers = filepath.Join(dir, "absent")
	if err := wantCode(t, o, diag.SignatureInvalid); err != nil && !strings.Contains(fmt.Sprint(err), "absent") {
		t.Errorf("a missing file of keys: %v", err)
	}
}
