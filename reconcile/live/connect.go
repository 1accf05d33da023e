// Package live is danmctl's way to a cluster: it reads what a bundle is rendered upon and what nodes have now, and asks for a
// refused plan to be tried again, or addresses to be freed. It decides nothing, and what does not say so only reads.
package live

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/tools/clientcmd"
)

// ErrNoConfig says that no cluster is configured.
var ErrNoConfig = errors.New("no cluster is configured: name a file with --kubeconfig or in KUBECONFIG, or write ~/.kube/config")

// patience bounds one request to an API server, and the wait for its first byte.
const patience = 15 * time.Second

// Options say which cluster, as kubectl's flags of the same names. Both may be empty.
type Options struct {
	Kubeconfig string // file; "" is KUBECONFIG, then ~/.kube/config, then the Pod's service account
	Context    string // "" is the file's current one
}

// Client speaks to one API server.
type Client struct {
	api  dynamic.Interface
	host string
}

// Connect reads the configuration; the server is not asked yet. ErrNoConfig if there is none.
func Connect(o Options) (*Client, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = o.Kubeconfig
	loader := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{CurrentContext: o.Context})
	raw, err := loader.RawConfig()
	if err != nil {
		return nil, fmt.Errorf("kubeconfig: %w (--kubeconfig or KUBECONFIG names the file)", err)
	}
	if _, ok := raw.Contexts[o.Context]; o.Context != "" && !ok {
		return nil, fmt.Errorf("the kubeconfig has no context %q: kubectl config get-contexts lists them", o.Context)
	}
	config, err := loader.ClientConfig()
	if clientcmd.IsEmptyConfig(err) {
		return nil, ErrNoConfig
	}
	if err != nil {
		return nil, fmt.Errorf("kubeconfig: %w (kubectl config view shows it)", err)
	}
	config.Timeout, config.UserAgent = patience, "danmctl"
	config.QPS, config.Burst = 50, 100
	api, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("client of %s: %w (kubectl config view shows the configuration)", config.Host, err)
	}
	return &Client{api: api, host: config.Host}, nil
}

// explain says what was asked and what helps; what is "list nodeplans", or the like.
func (c *Client) explain(what string, err error) error {
	var status apierrors.APIStatus
	var address *url.Error
	var network net.Error
	switch {
	case errors.Is(err, context.Canceled):
		return err
	case apierrors.IsForbidden(err):
		return fmt.Errorf("%s: %w; a ClusterRoleBinding to danm-viewer (deploy/base/viewer-rbac.yaml) lets you read, retry needs patch of networkbundles", what, err)
	case apierrors.IsUnauthorized(err):
		return fmt.Errorf("%s: %s does not know you: %w; renew the credentials in the kubeconfig, or choose another --context", what, c.host, err)
	case apierrors.IsNotFound(err):
		return fmt.Errorf("%s: %w; has the cluster DANM's definitions? kubectl apply --server-side -k deploy/crd installs them", what, err)
	case errors.As(err, &status):
		return fmt.Errorf("%s: %w", what, err)
	case errors.As(err, &address), errors.As(err, &network), errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%s: the API server %s does not answer: %w; is it the right --context, and is the server reached from here?", what, c.host, err)
	}
	return fmt.Errorf("%s: %w", what, err)
}
