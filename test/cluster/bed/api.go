// Package bed starts a real Kubernetes for tests: etcd and kube-apiserver on loopback, and (Cluster) whole nodes in
// namespaces. The programs come from test/cluster/build.sh; nothing is fetched here.
package bed

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// ErrNotBuilt says that the programs are not there: make test-cluster builds them.
var ErrNotBuilt = errors.New("the test bed's programs are not built: run test/cluster/build.sh")

// Programs is the directory of the bed's programs.
func Programs() (string, error) {
	dir := os.Getenv("DANM_TEST_BED")
	if dir == "" {
		return "", ErrNotBuilt
	}
	if _, err := os.Stat(filepath.Join(dir, "kube-apiserver")); err != nil {
		return "", ErrNotBuilt
	}
	return dir, nil
}

// API is etcd and kube-apiserver.
type API struct {
	Dir    string
	Host   string // https://host:port
	etcd   *process
	server *process
	argv   []string
}

// AdminToken is the token of a user who may do everything. Tests make others with service accounts.
const AdminToken = "admintoken"

// MaxNodes is how many Nodes have a token: n1, n2 and so on.
const MaxNodes = 8

// NodeToken is the token of the kubelet of the i-th Node, from 1.
func NodeToken(i int) string { return fmt.Sprintf("node%dtoken", i) }

// components are users whom Kubernetes binds to what its programs need: none of them runs as the administrator.
var components = []string{"system:kube-controller-manager", "system:kube-scheduler", "system:kube-proxy"}

// StartAPI starts both in dir and waits until the server is ready. Address is where it listens, "" for
// loopback.
func StartAPI(dir, address string, fork Fork) (*API, error) {
	bin, err := Programs()
	if err != nil {
		return nil, err
	}
	if address == "" {
		address = "127.0.0.1"
	}
	ports, err := ports(address)
	if err != nil {
		return nil, err
	}
	a := &API{Dir: dir, Host: fmt.Sprintf("https://%s:%d", address, ports[0])}
	if err := a.files(); err != nil {
		return nil, err
	}
	client := fmt.Sprintf("http://127.0.0.1:%d", ports[1])
	peer := fmt.Sprintf("http://127.0.0.1:%d", ports[2])
	a.etcd, err = start(dir, "etcd", fork, filepath.Join(bin, "etcd"), "--data-dir", filepath.Join(dir, "etcd"), "--listen-client-urls", client,
		"--advertise-client-urls", client, "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", "default="+peer,
		"--unsafe-no-fsync", "--log-level", "error", "--quota-backend-bytes", "4294967296")
	if err != nil {
		return nil, err
	}
	pki := filepath.Join(dir, "pki")
	a.argv = []string{filepath.Join(bin, "kube-apiserver"), "--etcd-servers", client, "--bind-address", address, "--secure-port", fmt.Sprint(ports[0]),
		"--advertise-address", address, "--cert-dir", pki, "--service-account-key-file", filepath.Join(pki, "sa.key"),
		"--service-account-signing-key-file", filepath.Join(pki, "sa.key"), "--service-account-issuer", "https://kubernetes.default.svc",
		"--token-auth-file", filepath.Join(pki, "tokens.csv"), "--authorization-mode", "Node,RBAC", "--service-cluster-ip-range", "10.96.0.0/16",
		"--allow-privileged", "--enable-admission-plugins", "NodeRestriction", "--endpoint-reconciler-type", reconciler(address),
		"--kubelet-client-certificate", filepath.Join(pki, kubeletClient+".crt"), "--kubelet-client-key", filepath.Join(pki, kubeletClient+".key"),
		"--kubelet-preferred-address-types", "InternalIP"}
	if err := a.Restart(fork); err != nil {
		return nil, errors.Join(err, a.Stop())
	}
	return a, nil
}

// reconciler is who keeps the endpoints of the Service "kubernetes": an API server refuses to publish a loopback address.
func reconciler(address string) string {
	if ip := net.ParseIP(address); ip != nil && ip.IsLoopback() {
		return "none"
	}
	return "lease"
}

// Restart starts the API server (again) with the same storage.
func (a *API) Restart(fork Fork) (err error) {
	if a.server != nil {
		a.server.stop()
	}
	if a.server, err = start(a.Dir, "kube-apiserver", fork, a.argv[0], a.argv[1:]...); err != nil {
		return err
	}
	return a.waitReady(fork)
}

// Freeze and Thaw stop the API server's process without ending it.
func (a *API) Freeze() error { return a.server.cmd.Process.Signal(syscall.SIGSTOP) }

// Thaw is the opposite of Freeze.
func (a *API) Thaw() error { return a.server.cmd.Process.Signal(syscall.SIGCONT) }

// StopServer ends the API server; Restart starts it again.
func (a *API) StopServer() { a.server.stop() }

func (a *API) waitReady(fork Fork) error {
	var last []byte
	for deadline := time.Now().Add(90 * time.Second); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		if a.server.ended() {
			return fmt.Errorf("kube-apiserver ended: %s", a.server.tail())
		}
		out, err := a.Kubectl(fork, "get", "--raw", "/readyz")
		if last = out; err == nil {
			return nil
		}
	}
	return fmt.Errorf("kube-apiserver is not ready: %s %s", last, a.server.tail())
}

// Stop ends both.
func (a *API) Stop() error {
	if a.server != nil {
		a.server.stop()
	}
	if a.etcd != nil {
		a.etcd.stop()
	}
	return nil
}

// Config of a client with a token.
func (a *API) Config(token string) *rest.Config {
	return &rest.Config{Host: a.Host, BearerToken: token, TLSClientConfig: rest.TLSClientConfig{Insecure: true}, QPS: 1000, Burst: 2000}
}

// Kubeconfig writes one for a token and returns its path.
func (a *API) Kubeconfig(name, token string) (string, error) {
	c := clientcmdapi.NewConfig()
	c.Clusters["c"] = &clientcmdapi.Cluster{Server: a.Host, InsecureSkipTLSVerify: true}
	c.AuthInfos["u"] = &clientcmdapi.AuthInfo{Token: token}
	c.Contexts["c"] = &clientcmdapi.Context{Cluster: "c", AuthInfo: "u"}
	c.CurrentContext = "c"
	path := filepath.Join(a.Dir, name+".kubeconfig")
	return path, clientcmd.WriteToFile(*c, path)
}

// Kubectl runs the bed's kubectl as the administrator.
func (a *API) Kubectl(fork Fork, args ...string) ([]byte, error) {
	return a.KubectlInput(fork, "", args...)
}

// KubectlAs runs kubectl with a token other than the administrator's.
func (a *API) KubectlAs(token string, args ...string) ([]byte, error) {
	return a.kubectl(nil, token, "", args)
}

// KubectlInput is Kubectl with something to read.
func (a *API) KubectlInput(fork Fork, input string, args ...string) ([]byte, error) {
	return a.kubectl(fork, AdminToken, input, args)
}

func (a *API) kubectl(fork Fork, token, input string, args []string) ([]byte, error) {
	bin, err := Programs()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(bin, "kubectl"), append([]string{"--server", a.Host, "--token", token, "--insecure-skip-tls-verify"}, args...)...)
	cmd.Env = append(os.Environ(), "HOME="+a.Dir, "KUBECONFIG=/dev/null")
	cmd.Stdin = strings.NewReader(input)
	if fork != nil {
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		wait, err := fork(cmd)
		if err == nil {
			err = wait()
		}
		return out.Bytes(), err
	}
	return cmd.CombinedOutput()
}

func (a *API) files() error {
	pki := filepath.Join(a.Dir, "pki")
	if err := os.MkdirAll(pki, 0o700); err != nil {
		return err
	}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return err
	}
	block := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})
	tokens := AdminToken + ",admin,admin,system:masters\n"
	for _, c := range components {
		tokens += fmt.Sprintf("%stoken,%s,%s\n", c, c, c)
	}
	for i := range MaxNodes {
		tokens += fmt.Sprintf("%s,system:node:n%d,n%d,system:nodes\n", NodeToken(i+1), i+1, i+1)
	}
	return errors.Join(kubeletClientFiles(pki), os.WriteFile(filepath.Join(pki, "sa.key"), block, 0o600), os.WriteFile(filepath.Join(pki, "tokens.csv"), []byte(tokens), 0o600))
}

// ports are for the API server and etcd's clients and peers. An address that is not loopback is a namespace's, where all are free. On
// loopback they are below those that the kernel gives to whoever asks for any (ip_local_port_range): nobody gets one before it is used.
func ports(address string) ([]int, error) {
	if reconciler(address) != "none" {
		return []int{6443, 2379, 2380}, nil
	}
	var out []int
	var last error
	for range 100 {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 20000+mathrand.IntN(10000)))
		if err != nil {
			last = err
			continue
		}
		defer l.Close()
		if out = append(out, l.Addr().(*net.TCPAddr).Port); len(out) == 3 {
			return out, nil
		}
	}
	return nil, last
}
