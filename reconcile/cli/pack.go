package cli

import (
	"cmp"
	"context"
	"fmt"
	"path"
	"regexp"
	"strings"
	"unicode/utf8"

	"danm.io/danm/reconcile/overlay"
	"danm.io/danm/reconcile/source"
	"danm.io/danm/reconcile/source/snapshot"
	"danm.io/danm/spec/api/v1alpha1"
	"danm.io/danm/spec/decode"
	"sigs.k8s.io/yaml"
)

// PackOptions are danmctl pack's.
type PackOptions struct {
	Path      string
	Name      string // of the NetworkBundle
	Namespace string // of the ConfigMaps
	Part      int    // bytes of files in one ConfigMap, 0 = defaultPart
	// Getenv is nil, or where Argo CD says what the missing options are.
	Getenv func(string) string
	// Dir is the working directory, "" = do not care. Only with Getenv.
	Dir string
}

const (
	defaultNamespace = "danm-system"
	// defaultPart is half of what the API server takes in one ConfigMap: there is room for keys, and for the copy that some
	// clients keep of what they applied.
	defaultPart = 512 << 10
	// maxConfigMap is the API server's bound for the values of one ConfigMap.
	maxConfigMap = 1 << 20
	// maxBundleName leaves room for the digest and the number in the names of the ConfigMaps.
	maxBundleName = 200
)

// configKey is what the API server takes as a key of a ConfigMap.
var configKey = regexp.MustCompile(`^[-._a-zA-Z0-9]{1,253}$`)

// objectName is what the API server takes as a name (RFC 1123).
var objectName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`)

// packed is a ConfigMap. The types of k8s.io/api would write empty fields.
type packed struct {
	APIVersion string            `json:"apiVersion"`
	Kind       string            `json:"kind"`
	Metadata   packedMeta        `json:"metadata"`
	Data       map[string]string `json:"data,omitempty"`
	Binary     map[string][]byte `json:"binaryData,omitempty"`
	Spec       map[string]any    `json:"spec,omitempty"`
}

type packedMeta struct {
	Name        string            `json:"name"`
	Namespace   string            `json:"namespace,omitempty"`
	Labels      map[string]string `json:"labels,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

// Pack prints a NetworkBundle and the ConfigMaps that hold its files, for a tool that applies manifests. The same files give
// the same bytes. It returns OK, or Failed, also for a bundle with errors: what is broken does not leave the repository.
func Pack(ctx context.Context, o PackOptions, io IO) int {
	if o.Getenv != nil {
		o.fromArgo()
	}
	if o.Namespace == "" {
		o.Namespace = defaultNamespace
	}
	if o.Name == "" || o.Path == "" {
		return io.fail(&UsageError{"pack needs PATH and --name"})
	}
	if !objectName.MatchString(o.Name) || len(o.Name) > maxBundleName {
		return io.fail(&UsageError{fmt.Sprintf("%q cannot be a NetworkBundle's name: small letters, digits, - and ., a letter or digit at both ends, at most %d bytes", o.Name, maxBundleName)})
	}
	snap, err := fetch(ctx, o.Path)
	if err != nil {
		return io.fail(err)
	}
	manifests, err := pack(o, snap)
	if err != nil {
		return io.fail(err)
	}
	for _, m := range manifests {
		b, err := yaml.Marshal(m)
		if err != nil {
			return io.fail(fmt.Errorf("write YAML: %w", err))
		}
		if _, err := fmt.Fprintf(io.Out, "---\n%s", b); err != nil {
			return io.fail(err)
		}
	}
	return OK
}

// fromArgo takes what was not said from the environment that Argo CD gives to a plugin. It runs the plugin in the
// Application's directory: overlays reach their bases only from the repository's root, which is above.
func (o *PackOptions) fromArgo() {
	o.Name = cmp.Or(o.Name, o.Getenv("ARGOCD_ENV_BUNDLE_NAME"), o.Getenv("ARGOCD_APP_NAME"))
	o.Namespace = cmp.Or(o.Namespace, o.Getenv("ARGOCD_ENV_BUNDLE_NAMESPACE"))
	if o.Path != "" {
		return
	}
	o.Path = "."
	sub := strings.Trim(path.Clean("/"+o.Getenv("ARGOCD_APP_SOURCE_PATH")), "/")
	if root, ok := strings.CutSuffix(o.Dir, "/"+sub); ok && sub != "" && root != "" {
		o.Path = root + "//" + sub
	}
}

// pack is pure.
func pack(o PackOptions, snap source.Snapshot) ([]packed, error) {
	files := make([]decode.File, len(snap.Files))
	for i, f := range snap.Files {
		files[i] = decode.File{Path: f.Path, Data: f.Data}
	}
	if _, diags := overlay.Validate(files, snap.Dir); diags.HasErrors() {
		return nil, diags.Err()
	}
	if snap.Dir != "" {
		var diags = snap.Warnings
		if files, diags = overlay.Used(files, snap.Dir); diags.HasErrors() {
			return nil, diags.Err()
		}
	}
	parts, err := divide(files, o.Part)
	if err != nil {
		return nil, err
	}
	// The labels hold the digest of all files, so that a new bundle is a new set of ConfigMaps: the NetworkBundle, which is
	// applied last, turns to all of them at once, and never sees half of the old and half of the new.
	digest := digestOf(files)[:16]
	labels := map[string]string{v1alpha1.LabelSource: v1alpha1.LabelValue(o.Name), v1alpha1.LabelSourceDigest: digest}
	var out []packed
	for i, p := range parts {
		p.APIVersion, p.Kind = "v1", "ConfigMap"
		p.Metadata = packedMeta{
			Name: fmt.Sprintf("%s-%s-%d", v1alpha1.LabelValue(o.Name), digest, i), Namespace: o.Namespace, Labels: labels,
			Annotations: map[string]string{v1alpha1.AnnotationParts: fmt.Sprint(len(parts))},
		}
		out = append(out, p)
	}
	from := map[string]any{"namespace": o.Namespace, "selector": labels}
	if snap.Dir != "" && snap.Dir != "." {
		from["path"] = snap.Dir
	}
	bundle := packed{APIVersion: v1alpha1.APIVersion, Kind: v1alpha1.KindNetworkBundle, Metadata: packedMeta{Name: o.Name}, Spec: map[string]any{"configMaps": from}}
	if o.Getenv != nil { // the ConfigMaps are in wave 0
		bundle.Metadata.Annotations = map[string]string{"argocd.argoproj.io/sync-wave": "1"}
	}
	return append(out, bundle), nil
}

func digestOf(files []decode.File) string {
	list := make([]snapshot.File, len(files))
	for i, f := range files {
		list[i] = snapshot.File{Path: f.Path, Data: f.Data}
	}
	return snapshot.Digest(list)
}

// divide puts files into ConfigMaps of about part bytes, in their order.
func divide(files []decode.File, part int) ([]packed, error) {
	if part <= 0 {
		part = defaultPart
	}
	var out []packed
	used := part + 1
	for _, f := range files {
		key := strings.ReplaceAll(f.Path, "/", "__")
		switch {
		case strings.Contains(f.Path, "__"):
			return nil, fmt.Errorf("pack %s: in the key of a ConfigMap __ stands for a slash: rename the file", f.Path)
		case !configKey.MatchString(key):
			return nil, fmt.Errorf("pack %s: a key of a ConfigMap has letters, digits, - . and _ only, 253 at most: rename the file", f.Path)
		case len(f.Data) > maxConfigMap:
			return nil, fmt.Errorf("pack %s: %d bytes, and a ConfigMap holds %d: split the file, or let the NetworkBundle fetch from Git (spec.git)", f.Path, len(f.Data), maxConfigMap)
		}
		if used+len(f.Data) > part && used > 0 {
			out = append(out, packed{Data: map[string]string{}, Binary: map[string][]byte{}})
			used = 0
		}
		used += len(f.Data)
		if p := &out[len(out)-1]; utf8.Valid(f.Data) {
			p.Data[key] = string(f.Data)
		} else {
			p.Binary[key] = f.Data
		}
	}
	return out, nil
}
