package sync

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"danm.io/danm/reconcile/apply"
	"danm.io/danm/reconcile/fail"
	"danm.io/danm/reconcile/source"
	"danm.io/danm/reconcile/source/configmap"
	"danm.io/danm/reconcile/source/snapshot"
	"danm.io/danm/spec/api/v1alpha1"
	"danm.io/danm/spec/diag"
)

// open is the fetcher of a NetworkBundle's source, and the endpoint that nodes probe.
func (r *Reconciler) open(ctx context.Context, nb *v1alpha1.NetworkBundle) (source.Fetcher, string, error) {
	if m := nb.Spec.ConfigMaps; m != nil {
		if !slices.Contains(r.ConfigMapNamespaces, m.Namespace) {
			return nil, "", fail.Terminal(string(diag.AuthFailed), fmt.Errorf("the controller reads ConfigMaps in %s, not in %q: name it in --configmap-namespaces and give it a Role there",
				strings.Join(r.ConfigMapNamespaces, ", "), m.Namespace))
		}
		return configmap.Source{Client: r.Client, Namespace: m.Namespace, Selector: m.Selector, Dir: m.Path, Limits: snapshot.DefaultLimits()}, "", nil
	}
	l := locationOf(*nb.Spec.Git)
	location, err := source.ParseLocation(l.String())
	if err != nil {
		return nil, "", fail.Terminal(string(snapshot.Code(err)), err)
	}
	o := source.Options{CacheDir: filepath.Join(r.CacheDir, string(nb.UID), "git"), Auth: &source.Auth{}}
	secrets := filepath.Join(r.CacheDir, string(nb.UID), "secrets")
	if err := r.credentials(ctx, nb, secrets, &o); err != nil {
		return nil, "", err
	}
	f, err := source.Open(location.String(), o)
	return f, location.Endpoint(), err
}

func locationOf(g v1alpha1.GitSource) source.Location {
	l := source.Location{URL: g.URL, Subdir: "."}
	l.Scheme, _, _ = strings.Cut(g.URL, "://")
	if dir := strings.Trim(g.Path, "/"); dir != "" {
		l.Subdir = dir
	}
	if ref := g.Ref; ref != nil {
		switch {
		case ref.Branch != "":
			l.Ref = "refs/heads/" + ref.Branch
		case ref.Tag != "":
			l.Ref = "refs/tags/" + ref.Tag
		default:
			l.Ref, l.Semver = ref.Commit, ref.Semver
		}
	}
	return l
}

// credentials puts what the Secrets say into o: keys of files go into dir, readable by nobody else, the others stay in memory.
func (r *Reconciler) credentials(ctx context.Context, nb *v1alpha1.NetworkBundle, dir string, o *source.Options) error {
	if ref := nb.Spec.Git.SecretRef; ref != nil {
		data, err := r.secret(ctx, ref.Name)
		if err != nil {
			return err
		}
		if err := known(ref.Name, data); err != nil {
			return err
		}
		a := o.Auth
		a.Token, a.Username, a.Password = text(data["bearerToken"]), text(data["username"]), text(data["password"])
		for key, into := range map[string]*string{"ca.crt": &a.CAFile, "identity": &a.KeyFile, "known_hosts": &a.KnownHostsFile} {
			if len(data[key]) == 0 {
				continue
			}
			if *into, err = keep(dir, key, data[key]); err != nil {
				return err
			}
		}
		if strings.HasPrefix(nb.Spec.Git.URL, "ssh://") && (a.KeyFile == "" || a.KnownHostsFile == "") {
			return fail.Terminal(string(diag.SecretMissing), fmt.Errorf("secret %s has no identity or no known_hosts, which ssh needs", ref.Name))
		}
	}
	if v := nb.Spec.Git.Verify; v != nil {
		data, err := r.secret(ctx, v.SecretRef.Name)
		if err != nil {
			return err
		}
		if len(data["signers"]) == 0 {
			return fail.Terminal(string(diag.SecretMissing), fmt.Errorf("secret %s has no key signers", v.SecretRef.Name))
		}
		if o.Signers, err = keep(dir, "signers", data["signers"]); err != nil {
			return err
		}
	}
	return nil
}

// known refuses a Secret in which nothing would be used, and certificates that are none: the fetch would go on without them, and fail
// with an error that does not speak of the Secret.
func known(name string, data map[string][]byte) error {
	keys := []string{"bearerToken", "username", "password", "ca.crt", "identity", "known_hosts"}
	if !slices.ContainsFunc(keys, func(k string) bool { return len(data[k]) > 0 }) {
		has := slices.Sorted(maps.Keys(data))
		return fail.Terminal(string(diag.SecretMissing), fmt.Errorf("secret %s has none of the keys %s; its keys: %s", name, strings.Join(keys, ", "),
			cmp.Or(some(has), "none")))
	}
	if ca := data["ca.crt"]; len(ca) > 0 && !x509.NewCertPool().AppendCertsFromPEM(ca) {
		return fail.Terminal(string(diag.SecretMissing), fmt.Errorf("secret %s: its key ca.crt holds no certificate in PEM", name))
	}
	return nil
}

func text(b []byte) string { return strings.TrimRight(string(b), "\r\n") }

// secret reads a Secret of the controller's namespace, uncached: the controller may get Secrets, not list them.
func (r *Reconciler) secret(ctx context.Context, name string) (map[string][]byte, error) {
	var s corev1.Secret
	err := r.APIReader.Get(ctx, client.ObjectKey{Namespace: r.Namespace, Name: name}, &s)
	if apierrors.IsNotFound(err) || apierrors.IsForbidden(err) {
		return nil, fail.Waiting(string(diag.SecretMissing), 0, fmt.Errorf("secret %s/%s: %w", r.Namespace, name, err))
	}
	return s.Data, apply.Reason("secret "+name, err)
}

func keep(dir, name string, data []byte) (string, error) {
	path := filepath.Join(dir, name)
	if err := errors.Join(os.MkdirAll(dir, 0o700), os.WriteFile(path, data, 0o600)); err != nil {
		return "", fmt.Errorf("keep credentials: %w", err)
	}
	return path, nil
}
