// SPDX-License-Identifier: Apache-2.0

// Package cluster runs a real control plane for tests, the demo and benchmarks:
// kube-apiserver and etcd, on request kube-controller-manager, with the operator's
// CRDs and RBAC installed as they are shipped, where a test does not do so itself.
package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/go-logr/logr"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kruntime "k8s.io/apimachinery/pkg/runtime"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"rpi-connect.dev/operator/api/v1alpha1"
)

// Where config/default puts the operator.
const (
	OperatorNamespace      = "rpi-connect-system"
	OperatorServiceAccount = "rpi-connect-controller-manager"
)

// Options say what to start.
type Options struct {
	// ControllerManager also starts kube-controller-manager, for garbage
	// collection, the deletion of namespaces, and roles that are made of others.
	ControllerManager bool
	// Bare leaves it to the test to install the operator's CRDs and RBAC.
	Bare bool
}

// Cluster is a running control plane.
type Cluster struct {
	// Config is an administrator's.
	Config *rest.Config
	// Client is an administrator's, and knows the operator's kinds.
	Client client.Client
	// Dir holds what the cluster needs on disk; it goes with it.
	Dir string

	env        *envtest.Environment
	controller *exec.Cmd
	assets     string
}

// Scheme knows the kinds of Kubernetes, CRDs, and the operator's kinds.
func Scheme() *kruntime.Scheme {
	scheme := kruntime.NewScheme()
	utilruntime.Must(clientgoscheme.AddToScheme(scheme))
	utilruntime.Must(apiextensionsv1.AddToScheme(scheme))
	utilruntime.Must(v1alpha1.AddToScheme(scheme))
	return scheme
}

// Kinds are the names of the operator's kinds, in order. Every suite that is about all of them is compared
// with these, and so tells whoever adds a kind what it lacks.
func Kinds() []string {
	known := Scheme().KnownTypes(v1alpha1.GroupVersion)
	var kinds []string
	for kind := range known {
		if _, hasList := known[kind+"List"]; hasList {
			kinds = append(kinds, kind)
		}
	}
	slices.Sort(kinds)
	return kinds
}

// Lists are empty lists of the operator's kinds, in the order of their names.
func Lists() []client.ObjectList {
	scheme := Scheme()
	var lists []client.ObjectList
	for _, kind := range Kinds() {
		empty, err := scheme.New(v1alpha1.GroupVersion.WithKind(kind + "List"))
		utilruntime.Must(err)
		if list, ok := empty.(client.ObjectList); ok {
			lists = append(lists, list)
		}
	}
	return lists
}

// Start starts a control plane and installs what the operator needs. Stop has to
// be called in the end.
func Start(ctx context.Context, options Options) (*Cluster, error) {
	log.SetLogger(logr.Discard()) // envtest's own words interest nobody
	assets, err := Assets()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "rpi-connect-cluster-")
	if err != nil {
		return nil, err
	}
	c := &Cluster{Dir: dir, assets: assets}
	if err := c.start(ctx, options); err != nil {
		return nil, errors.Join(err, c.Stop())
	}
	return c, nil
}

func (c *Cluster) start(ctx context.Context, options Options) error {
	if err := os.WriteFile(c.path("audit-policy.yaml"), []byte(auditPolicy), 0o600); err != nil {
		return err
	}
	apiServer := &envtest.APIServer{}
	apiServer.Configure().
		Set("audit-policy-file", c.path("audit-policy.yaml")).
		Set("audit-log-path", c.path("audit.log")).
		Set("audit-log-maxsize", "10000") // MB: what is rotated away is not counted
	etcd := &envtest.Etcd{}
	// What is lost when the machine loses power is a test's data.
	etcd.Configure().Append("unsafe-no-fsync", "true").Set("quota-backend-bytes", "4294967296")
	c.env = &envtest.Environment{
		BinaryAssetsDirectory: c.assets,
		ErrorIfCRDPathMissing: true,
		Scheme:                Scheme(),
		ControlPlane:          envtest.ControlPlane{APIServer: apiServer, Etcd: etcd},
		// envtest gives up after 20 seconds, which is too early on a machine that is busy.
		ControlPlaneStartTimeout: 2 * time.Minute,
	}
	if !options.Bare {
		c.env.CRDDirectoryPaths = []string{filepath.Join(Root(), "config", "crd", "bases")}
	}
	var err error
	if c.Config, err = c.env.Start(); err != nil {
		return fmt.Errorf("start the control plane in %s: %w", c.assets, err)
	}
	c.Config.QPS = -1 // the API server's own fairness is enough
	if c.Client, err = client.New(c.Config, client.Options{Scheme: Scheme()}); err != nil {
		return err
	}
	if !options.Bare {
		if err := c.installRBAC(ctx); err != nil {
			return err
		}
	}
	if options.ControllerManager {
		return c.startControllerManager()
	}
	return nil
}

// Stop ends everything.
func (c *Cluster) Stop() error {
	var errs []error
	if c.controller != nil {
		_ = c.controller.Process.Kill()
		_ = c.controller.Wait()
	}
	if c.env != nil {
		errs = append(errs, c.env.Stop())
	}
	return errors.Join(append(errs, os.RemoveAll(c.Dir))...)
}

func (c *Cluster) path(name string) string { return filepath.Join(c.Dir, name) }

// HasControllerManager tells whether the assets hold kube-controller-manager,
// which downloaded ones do not.
func HasControllerManager() bool {
	assets, err := Assets()
	if err != nil {
		return false
	}
	_, err = os.Stat(filepath.Join(assets, "kube-controller-manager"))
	return err == nil
}

func (c *Cluster) startControllerManager() error {
	kubeconfig := c.path("controller-manager.kubeconfig")
	if err := WriteKubeconfig(kubeconfig, c.Config, metav1.NamespaceDefault); err != nil {
		return err
	}
	c.controller = exec.Command(filepath.Join(c.assets, "kube-controller-manager"),
		"--kubeconfig="+kubeconfig, "--leader-elect=false", "--secure-port=0",
		"--controllers=garbage-collector-controller,namespace-controller,clusterrole-aggregation-controller")
	output, err := os.Create(c.path("controller-manager.log"))
	if err != nil {
		return err
	}
	c.controller.Stdout, c.controller.Stderr = output, output
	endWithParent(c.controller)
	return c.controller.Start()
}

// Kubectl is the path of kubectl.
func (c *Cluster) Kubectl() string { return filepath.Join(c.assets, "kubectl") }

// OperatorConfig returns what the operator has in a cluster: its ServiceAccount's
// token, with the rights that config/default gives.
func (c *Cluster) OperatorConfig(ctx context.Context) (*rest.Config, error) {
	return c.accountConfig(ctx, OperatorServiceAccount)
}

// accountConfig is for a ServiceAccount of the operator's namespace.
func (c *Cluster) accountConfig(ctx context.Context, name string) (*rest.Config, error) {
	token, err := c.AccountToken(ctx, OperatorNamespace, name)
	if err != nil {
		return nil, err
	}
	config := rest.AnonymousClientConfig(c.Config)
	config.BearerToken = token
	config.QPS = -1
	return config, nil
}

// AccountToken returns a token of a ServiceAccount.
func (c *Cluster) AccountToken(ctx context.Context, namespace, name string) (string, error) {
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
	hours := int64((12 * time.Hour).Seconds())
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: &hours}}
	if err := c.Client.SubResource("token").Create(ctx, account, request); err != nil {
		return "", fmt.Errorf("get a token for %s: %w", name, err)
	}
	return request.Status.Token, nil
}

// WriteKubeconfig writes a kubeconfig for the config, and for a namespace.
func WriteKubeconfig(path string, config *rest.Config, namespace string) error {
	kubeconfig := clientcmdapi.NewConfig()
	kubeconfig.Clusters["demo"] = &clientcmdapi.Cluster{
		Server: config.Host, CertificateAuthorityData: config.CAData, InsecureSkipTLSVerify: config.Insecure,
	}
	kubeconfig.AuthInfos["demo"] = &clientcmdapi.AuthInfo{
		Token: config.BearerToken, ClientCertificateData: config.CertData, ClientKeyData: config.KeyData,
	}
	kubeconfig.Contexts["demo"] = &clientcmdapi.Context{Cluster: "demo", AuthInfo: "demo", Namespace: namespace}
	kubeconfig.CurrentContext = "demo"
	return clientcmd.WriteToFile(*kubeconfig, path)
}

// Root is the repository's root folder.
func Root() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Dir(filepath.Dir(filepath.Dir(file)))
}

// Assets is the folder that holds the control plane's binaries:
// KUBEBUILDER_ASSETS, or what hack/controlplane/assets.sh finds or builds.
func Assets() (string, error) {
	if assets := os.Getenv("KUBEBUILDER_ASSETS"); assets != "" {
		return assets, nil
	}
	script := exec.Command(filepath.Join(Root(), "hack", "controlplane", "assets.sh"), "--controller-manager")
	script.Stderr = os.Stderr
	out, err := script.Output()
	if err != nil {
		return "", fmt.Errorf("find or build the control plane (make control-plane): %w", err)
	}
	return strings.TrimSpace(string(out)), nil
}
