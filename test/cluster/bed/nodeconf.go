package bed

import "fmt"

// What a node's programs read. Paths are the node's own.

const containerdSocket = "/run/containerd/containerd.sock"

// containerdConfig: restrict_oom_score_adj because a bed may itself run where scores cannot be lowered.
const containerdConfig = `version = 3
root = "/var/lib/containerd"
state = "/run/containerd"
[grpc]
  address = "` + containerdSocket + `"
[plugins."io.containerd.cri.v1.runtime"]
  disable_apparmor = true
  restrict_oom_score_adj = true
  [plugins."io.containerd.cri.v1.runtime".cni]
    bin_dirs = ["/opt/cni/bin"]
    conf_dir = "/etc/cni/net.d"
[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = "` + BusyboxName + `"
`

// kubeletConfig asks the API server who calls, so that exec and logs work as on any node; the machine's disk and swap are not
// the bed's business.
func kubeletConfig(cgroup string) string {
	return fmt.Sprintf(`apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
failCgroupV1: false
cgroupDriver: cgroupfs
cgroupRoot: /%s
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: /etc/kubernetes/ca.crt}}
authorization: {mode: Webhook}
containerRuntimeEndpoint: unix://%s
staticPodPath: /etc/kubernetes/manifests
resolvConf: ""
failSwapOn: false
readOnlyPort: 0
makeIPTablesUtilChains: false
evictionHard: {}
enforceNodeAllocatable: []
imageGCHighThresholdPercent: 100
localStorageCapacityIsolation: false
nodeStatusUpdateFrequency: 5s
`, cgroup, containerdSocket)
}

// proxyConfig: all traffic to Services is masqueraded, so that a Pod may reach one whose endpoint is behind the same bridge.
func proxyConfig(node string) string {
	return fmt.Sprintf(`apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
hostnameOverride: %s
clientConnection: {kubeconfig: /etc/kubernetes/proxy.kubeconfig}
healthzBindAddress: 127.0.0.1:10256
metricsBindAddress: 127.0.0.1:10249
nftables: {masqueradeAll: true, minSyncPeriod: 100ms}
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
`, node)
}
