import 'swagger-ui-dist/swagger-ui.css';
import './api-docs.css';
// The published bundle is served as a file: bundling it again would gain nothing.
import swaggerUi from 'swagger-ui-dist/swagger-ui-bundle.js?url';

const reference = document.getElementById('reference')!;

/** Swagger UI takes its dark colours from a class of the document. */
const dark = matchMedia('(prefers-color-scheme: dark)');
const followColours = () => document.documentElement.classList.toggle('dark-mode', dark.matches);
dark.addEventListener('change', followColours);
followColours();

/**
 * Loads the API's document and sends requests to the page's own origin, which need not be
 * `PUBLIC_URL`: the page's policy allows no other origin.
 */
async function description(): Promise<object> {
  const response = await fetch('/api/v1/openapi.json');
  if (!response.ok) throw new Error(`openapi.json: ${response.status}`);
  return { ...((await response.json()) as object), servers: [{ url: '/api/v1' }] };
}

function loadSwaggerUi(): Promise<void> {
  return new Promise((resolve, reject) => {
    const script = document.createElement('script');
    script.src = swaggerUi;
    script.addEventListener('load', () => resolve());
    script.addEventListener('error', () => reject(new Error('the script could not be loaded')));
    document.head.append(script);
  });
}

Promise.all([description(), loadSwaggerUi()])
  .then(([spec]) =>
    window.SwaggerUIBundle?.({
      spec,
      domNode: reference,
      deepLinking: true,
      docExpansion: 'list',
      defaultModelsExpandDepth: 0,
      filter: true,
      showCommonExtensions: true,
      displayRequestDuration: true,
      // By default Swagger UI sends the document to a service that validates it.
      validatorUrl: null,
      onComplete: () => reference.removeAttribute('aria-busy'),
    }),
  )
  .catch(() => {
    reference.replaceChildren('The reference could not be loaded. Reload the page to try again.');
    reference.removeAttribute('aria-busy');
  });
